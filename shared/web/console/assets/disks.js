import { get, post, remove } from "./api.js";
import { moment } from "./time.js";
import { ask, badge, field, h, sayChanges, table } from "./ui.js";
import { View } from "./view.js";

const unseen = (text) => h("span", { class: "unseen" }, text);
const stateOf = (disk) =>
  disk.is_deleted ? "deleted" : disk.in_use ? "in use" : disk.is_backing_up ? "snapshot" : disk.status;

export class DisksView extends View {
  title = "Disks";
  disks = [];
  snapshots = new Map();
  opened = new Set();
  withDeleted = false;

  start() {
    return this.load(async () => {
      const path = `/v1/disks?limit=500&include_deleted=${this.withDeleted}`;
      const before = this.states();
      this.disks = (await get(path, { signal: this.signal })).disks;
      sayChanges(before, this.states(), "disks");
      for (const name of this.opened) await this.readSnapshots(name);
    });
  }

  states() {
    return new Map(this.disks.map((disk) => [disk.disk_id, { name: disk.disk_name, state: stateOf(disk) }]));
  }

  onEvent(event) {
    if (!event.source.endsWith("/capacity")) this.onResync();
  }

  onResync() {
    this.soon("disks", () => this.start());
  }

  async readSnapshots(name) {
    const answer = await get(`/v1/disks/${name}/snapshots?limit=500`, { signal: this.signal });
    this.snapshots.set(name, answer.snapshots);
  }

  async toggle(name, event) {
    if (!event.target.open) {
      this.opened.delete(name);
      return;
    }
    this.opened.add(name);
    await this.load(() => this.readSnapshots(name));
  }

  change(action, more = {}) {
    return this.act("disk", action, { after: () => this.start(), ...more });
  }

  render() {
    const flip = (event) => {
      this.withDeleted = event.target.checked;
      this.start();
    };
    return [
      h("h1", { tabindex: "-1" }, "Your disks"),
      this.error && h("p", { class: "error", role: "alert" }, this.error),
      this.disks.length === 0
        ? h("p", { class: "quiet" }, this.isLoading ? "Loading …" : "You have no disk. A job can make one, too.")
        : h("ul", { class: "disks", "aria-label": "Disks" }, this.disks.map((disk) => this.disk(disk))),
      h(
        "p",
        { class: "field check" },
        h("input", { id: "with-deleted", type: "checkbox", onchange: flip }),
        h("label", { for: "with-deleted" }, "Show deleted ones, which can still be brought back"),
      ),
      this.creation(),
    ];
  }

  disk(disk) {
    const name = disk.disk_name;
    const path = `/v1/disks/${name}`;
    const key = disk.disk_id;
    const isFree = !disk.in_use && !disk.is_deleted;
    const drop = async () => {
      const text = `Delete the disk ${name}? It can be brought back until it is purged.`;
      if (await ask(text, "Delete the disk")) await this.change(() => remove(path));
    };
    const rename = (event) => {
      event.preventDefault();
      const given = new FormData(event.target).get("new_name").trim();
      event.target.reset();
      return this.change(() => post(`${path}/rename`, { new_name: given }));
    };
    const isBusy = this.busy !== null;
    return h(
      "li",
      { key, class: "disk" },
      h("h2", null, `${name} `, badge(stateOf(disk))),
      h(
        "p",
        null,
        `${disk.size_gb} GB, made `,
        moment(disk.created_at),
        disk.last_used && [", last used ", moment(disk.last_used)],
        disk.reservation_id && disk.in_use && [" by ", h("a", { href: `#/jobs/${disk.reservation_id}` }, "a job")],
        disk.delete_date && `, purged on ${disk.delete_date}`,
      ),
      h(
        "div",
        { class: "actions" },
        isFree &&
          h("button", { key: "snap", type: "button", disabled: isBusy, "aria-label": `Take a snapshot of ${name}`,
            onclick: () => this.change(() => post(`${path}/snapshots`)) }, "Take a snapshot"),
        isFree &&
          h("button", { key: "drop", type: "button", class: "danger", disabled: isBusy, "aria-label": `Delete ${name}`,
            onclick: drop }, "Delete"),
        disk.is_deleted &&
          h("button", { key: "back", type: "button", disabled: isBusy, "aria-label": `Bring back ${name}`,
            onclick: () => this.change(() => post(`${path}/restore`)) }, "Bring back"),
        isFree &&
          h("form", { key: "name", class: "inline", onsubmit: rename },
            h("label", { for: `rename-${key}` }, "Rename", unseen(` ${name}`), " to"),
            h("input", { id: `rename-${key}`, name: "new_name", required: true, maxlength: "63", autocomplete: "off" }),
            h("button", { disabled: isBusy, "aria-label": `Rename ${name}` }, "Rename")),
      ),
      !disk.is_deleted &&
        h(
          "details",
          { ontoggle: (event) => this.toggle(name, event) },
          h("summary", null, `Snapshots (${disk.snapshot_count})`, unseen(` of ${name}`)),
          this.snapshotTable(name),
        ),
    );
  }

  snapshotTable(name) {
    const rows = (this.snapshots.get(name) ?? []).map((one) => ({
      key: one.snapshot_id,
      cells: [moment(one.created_at), badge(one.state), `${one.size_gb} GB`, this.fromSnapshot(one)],
    }));
    const empty = this.snapshots.has(name) ? "There are none yet." : "Loading …";
    return table(`Snapshots of ${name}`, ["Taken", "State", "Size", "New disk"], rows, empty);
  }

  fromSnapshot(one) {
    if (one.state !== "completed") return one.error ?? "";
    const make = (event) => {
      event.preventDefault();
      const given = new FormData(event.target).get("disk_name").trim();
      const body = { disk_name: given, size_gb: one.size_gb, from_snapshot: one.snapshot_id };
      event.target.reset();
      return this.change(() => post("/v1/disks", body));
    };
    const id = `from-${one.snapshot_id}`;
    return h(
      "form",
      { class: "inline", onsubmit: make },
      h("label", { for: id, class: "unseen" }, "Name of a new disk from this snapshot, ", one.snapshot_id.slice(0, 8)),
      h("input", { id, name: "disk_name", placeholder: "name", required: true, maxlength: "63", autocomplete: "off" }),
      h("button", { disabled: this.busy !== null, "aria-label": `Make a disk from ${one.snapshot_id.slice(0, 8)}` }, "Make"),
    );
  }

  creation() {
    const create = (event) => {
      event.preventDefault();
      const form = event.target;
      const given = new FormData(form);
      const body = { disk_name: given.get("disk_name").trim(), size_gb: Number(given.get("size_gb")) };
      return this.change(() => post("/v1/disks", body), {
        after: () => {
          form.reset();
          return this.start();
        },
      });
    };
    return h(
      "section",
      { key: "creation", "aria-labelledby": "create-disk" },
      h("h2", { id: "create-disk" }, "Make a disk"),
      h(
        "form",
        { class: "pair", onsubmit: create },
        field("Name", h("input", { id: "disk_name", name: "disk_name", required: true, maxlength: "63", autocomplete: "off" })),
        field("GB", h("input", { id: "size_gb", name: "size_gb", type: "number", min: "10", value: "100", required: true })),
        h("button", { disabled: this.busy !== null }, "Make"),
      ),
    );
  }
}
