import { get, textOf } from "./api.js";
import { moment } from "./time.js";
import { badge, h, say, table } from "./ui.js";

/** What operators see of what is left over; each place is looked at by itself, so that none keeps the others waiting. */
const PLACES = { cluster: "the cluster", aws: "AWS", leases: "the leases" };

export class Orphans {
  found = new Map();
  problems = new Map();

  constructor(view) {
    this.view = view;
  }

  look() {
    return Promise.all(Object.keys(PLACES).map((place) => this.lookAt(place)));
  }

  async lookAgain() {
    await this.look();
    if (this.problems.size === 0) say(this.total === 0 ? "Nothing is left over." : `Orphans: ${this.total}.`);
  }

  get total() {
    return [...this.found.values()].reduce((sum, one) => sum + one.total, 0);
  }

  async lookAt(place) {
    const { signal } = this.view;
    try {
      this.found.set(place, await get(`/v1/orphans/${place}`, { signal }));
      this.problems.delete(place);
    } catch (error) {
      this.problems.set(place, `Orphans in ${PLACES[place]}: ${textOf(error)}`);
    }
    if (signal.aborted) return;
    this.view.note(place, this.problems.get(place));
    this.view.update();
  }

  render() {
    const lists = Object.keys(PLACES).filter((place) => this.found.has(place));
    const open = Object.keys(PLACES).filter((place) => !this.found.has(place));
    const awaited = open.filter((place) => !this.problems.has(place)).map((place) => PLACES[place]);
    const unseen = open.filter((place) => this.problems.has(place)).map((place) => PLACES[place]);
    const { total } = this;
    const shown = lists.reduce((sum, place) => sum + this.found.get(place).orphans.length, 0);
    return h(
      "section",
      { key: "orphans", "aria-labelledby": "orphans-head" },
      h("h2", { id: "orphans-head" }, "Orphans ", h("span", { class: "count" }, total.toLocaleString())),
      table(
        "Orphans",
        ["What", "Where", "Finding", "Job", "Since", "That is"],
        lists.flatMap((place) =>
          this.found.get(place).orphans.map((one) => ({
            key: `${place} ${one.finding} ${one.kind} ${one.name}`,
            cells: [
              h("code", null, one.name),
              `${one.kind} in ${PLACES[place]}`,
              badge(one.finding.replaceAll("_", " ")),
              one.job_id && h("code", { title: one.job_id }, one.job_id.slice(0, 8)),
              one.since && moment(one.since),
              one.message,
            ],
          })),
        ),
        awaited.length > 0
          ? `Looking at ${awaited.join(", ")} …`
          : unseen.length > 0
            ? `${unseen.join(", ")} could not be looked at.`
            : "Nothing is left over.",
      ),
      total > shown && h("p", { class: "quiet" }, `${shown} are shown.`),
      h("p", null, h("button", { type: "button", onclick: () => this.lookAgain() }, "Look for orphans again")),
    );
  }
}
