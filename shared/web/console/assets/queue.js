import { get, post, user } from "./api.js";
import { moment } from "./time.js";
import { h, table } from "./ui.js";
import { View } from "./view.js";

export class QueueView extends View {
  title = "Queue";
  topics = "jobs,cluster";
  whose = user()?.is_operator ? "*" : undefined;
  queues = [];

  start() {
    return this.load(async () => {
      this.queues = (await get("/v1/gpu/queue", { signal: this.signal })).queues;
    });
  }

  onEvent() {
    this.onResync();
  }

  onResync() {
    this.soon("queue", () => this.start(), 500);
  }

  render() {
    return [
      h("h1", { tabindex: "-1" }, "Queue"),
      this.error && h("p", { class: "error", role: "alert" }, this.error),
      h(
        "p",
        { class: "quiet" },
        "Jobs start in this order; a later one may start first where it delays none ahead. One in two starts before the " +
          "time that is told, and nine in ten before the later one.",
      ),
      !this.isLoading && this.queues.length === 0 && h("p", null, "Nobody waits."),
      this.queues.map((queue) => this.queue(queue)),
    ];
  }

  queue(queue) {
    const id = `queue-${queue.gpu_type}`;
    const isOperator = user()?.is_operator;
    const heads = ["Place", "Job", "GPUs", "Starts about", "Nine in ten before", "Submitted"];
    if (isOperator) heads.push("Priority");
    const text = `${queue.jobs.toLocaleString()} jobs, ${queue.gpus.toLocaleString()} GPUs`;
    return h(
      "section",
      { key: queue.gpu_type, "aria-labelledby": id },
      h("h2", { id }, `${queue.gpu_type} `, h("span", { class: "count" }, text)),
      table(
        `Queue of ${queue.gpu_type}`,
        heads,
        queue.entries.map((entry) => ({
          key: String(entry.job_id ?? `place-${entry.position}`),
          class: entry.own ? "own" : null,
          cells: [
            String(entry.position),
            this.job(entry),
            String(entry.gpu_count),
            entry.waits_for_disk ? "waits for its disk" : (moment(entry.estimated_start_time) ?? "not known"),
            moment(entry.estimated_start_time_p90) ?? "–",
            moment(entry.submitted_at),
            ...(isOperator ? [this.priority(entry)] : []),
          ],
        })),
        "Nobody waits.",
      ),
      queue.entries.length < queue.jobs &&
        h("p", { class: "quiet" }, `The first ${queue.entries.length} are shown; your own are in your jobs.`),
    );
  }

  job(entry) {
    if (entry.own) return h("span", null, h("a", { href: `#/jobs/${entry.job_id}` }, entry.job_id.slice(0, 8)), " (yours)");
    return entry.job_id === null ? "another's" : h("code", null, entry.job_id.slice(0, 8));
  }

  priority(entry) {
    const id = `priority-${entry.job_id}`;
    const set = (event) => {
      event.preventDefault();
      const priority = Number(new FormData(event.target).get("priority"));
      const told = () => `${entry.job_id.slice(0, 8)} has priority ${priority}.`;
      return this.act("priority", () => post(`/v1/jobs/${entry.job_id}/priority`, { priority }), { told });
    };
    return h(
      "form",
      { class: "inline", onsubmit: set },
      h("label", { for: id, class: "unseen" }, `Priority of ${entry.job_id.slice(0, 8)}`),
      h("input", { id, name: "priority", type: "number", step: "1", class: "short", value: String(entry.priority) }),
      h("button", { disabled: this.busy === "priority", "aria-label": `Set the priority of ${entry.job_id.slice(0, 8)}` }, "Set"),
    );
  }
}
