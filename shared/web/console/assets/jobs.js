import { get, query } from "./api.js";
import { moment, secondsUntil, span } from "./time.js";
import { badge, h, sayChanges, table } from "./ui.js";
import { View } from "./view.js";

export const OPEN = ["pending", "queued", "preparing", "active"];
const ENDED = ["completed", "failed", "cancelled", "expired"];
const PAGE = 50;
const MOST = 500;

export const nameOf = (job) => job.name ?? job.job_id.slice(0, 8);
export const gpus = (job) => `${job.gpu_count} × ${job.gpu_type}`;

/** What a person wants to know of a job's time: how long it waits, runs, or when and how it ended. */
export function timing(job) {
  if (job.status === "active") {
    const left = secondsUntil(job.expires_at);
    return h("span", { class: left < 900 ? "warning" : null }, left > 0 ? `${span(left)} left` : "time is up");
  }
  if (job.status === "preparing") return job.current_detailed_status ?? "preparing";
  if (OPEN.includes(job.status)) {
    const place = job.queue_position ? `place ${job.queue_position}` : (job.status_reason ?? "waiting");
    return job.estimated_start_time ? h("span", null, place, ", starts about ", moment(job.estimated_start_time)) : place;
  }
  const code = job.exit_code === null ? null : `, exit code ${job.exit_code}`;
  return h("span", null, moment(job.ended_at), code);
}

class JobList {
  constructor(statuses) {
    this.statuses = statuses;
    this.shown = PAGE;
    this.jobs = [];
    this.total = 0;
  }

  async read(signal) {
    const wanted = { status: this.statuses.join(","), limit: this.shown };
    ({ jobs: this.jobs, total: this.total } = await get(`/v1/jobs?${query(wanted)}`, { signal }));
  }
}

export class JobsView extends View {
  title = "Jobs";
  open = new JobList(OPEN);
  past = new JobList(ENDED);

  start() {
    return this.load(async () => {
      const before = this.states();
      await Promise.all([this.open.read(this.signal), this.past.read(this.signal)]);
      sayChanges(before, this.states(), "jobs");
    });
  }

  states() {
    const jobs = [...this.past.jobs, ...this.open.jobs];
    return new Map(jobs.map((job) => [job.job_id, { name: nameOf(job), state: job.status }]));
  }

  onEvent(event) {
    if (!event.source.endsWith("/disks")) this.onResync();
  }

  onResync() {
    this.soon("jobs", () => this.start());
  }

  render() {
    return [
      h("h1", { tabindex: "-1" }, "Your jobs"),
      this.error && h("p", { class: "error", role: "alert" }, this.error),
      this.list("Open", this.open, this.isLoading ? "Loading …" : ["Nothing runs or waits. ", h("a", { href: "#/submit" }, "Submit a job"), " to begin."]),
      this.list("Ended", this.past, this.isLoading ? "Loading …" : "No job has ended yet."),
    ];
  }

  list(heading, list, empty) {
    const id = `${heading.toLowerCase()}-jobs`;
    return h(
      "section",
      { key: id, "aria-labelledby": id },
      h("h2", { id }, `${heading} `, h("span", { class: "count" }, list.total.toLocaleString())),
      table(
        `${heading} jobs, newest first`,
        ["Job", "Status", "GPUs", heading === "Open" ? "Time" : "Ended", "Submitted"],
        list.jobs.map((job) => ({
          key: job.job_id,
          cells: [
            h("a", { href: `#/jobs/${job.job_id}` }, nameOf(job)),
            badge(job.status),
            gpus(job),
            timing(job),
            moment(job.created_at),
          ],
        })),
        empty,
      ),
      list.jobs.length < list.total && this.more(list),
    );
  }

  more(list) {
    const label = `Show more ${list === this.open ? "open" : "ended"} jobs`;
    const text = `${list.jobs.length.toLocaleString()} of ${list.total.toLocaleString()} are shown.`;
    if (list.shown >= MOST) return h("p", { class: "quiet" }, text, " The command `gpudev list` shows all.");
    const show = () => {
      list.shown = Math.min(list.shown * 2, MOST);
      this.start();
    };
    return h("p", { class: "more" }, text, " ", h("button", { type: "button", "aria-label": label, onclick: show }, "Show more"));
  }
}
