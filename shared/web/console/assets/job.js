import { followJob, get, post } from "./api.js";
import { OPEN, gpus, nameOf, timing } from "./jobs.js";
import { LogPane } from "./log.js";
import { hours, moment, secondsUntil } from "./time.js";
import { ask, badge, copyable, facts, h, say } from "./ui.js";
import { View } from "./view.js";

const STEPS = ["queued", "preparing", "active"];
const WAIT = { headers: { Prefer: "wait=20" } };
/** The outcome in our words if it is known, otherwise the service's. */
const outcome = (text) => (answer) => (answer.status === "succeeded" ? text : answer.message);

function warningsOf(job) {
  const texts = [job.warning, job.failure_reason, job.access_error, job.jupyter_error];
  if (job.status !== "queued") texts.push(job.status_reason);
  return [...new Set(texts.filter(Boolean))];
}

export class JobView extends View {
  title = "Job";
  job = null;
  history = [];
  explained = null;
  log = null;
  logState = "following";

  async start() {
    const [jobId] = this.parameters;
    await this.load(() => followJob(jobId, this.signal, (job) => this.take(job)));
  }

  stop() {
    super.stop();
    this.log?.stop();
  }

  onEvent(event) {
    if (event.subject !== this.job?.job_id) return;
    if (["pending", "queued"].includes(this.job.status)) this.soon("explain", () => this.explain());
  }

  take(job) {
    const isChanged = job.status !== this.job?.status;
    this.sayNews(job, isChanged);
    this.job = job;
    this.isLoading = false;
    this.error = null;
    this.title = `Job ${nameOf(job)}`;
    this.update();
    if (isChanged) {
      this.readHistory();
      if (["pending", "queued"].includes(job.status)) this.explain();
    }
  }

  /** Not the time that is left: it changes every second. */
  sayNews(job, isChanged) {
    if (isChanged) say(`${nameOf(job)} is ${job.status}.`);
    const before = this.job === null ? [] : warningsOf(this.job);
    for (const text of warningsOf(job)) if (!before.includes(text)) say(text);
  }

  async readHistory() {
    try {
      this.history = (await get(`/v1/jobs/${this.job.job_id}/history`, { signal: this.signal })).history;
      this.update();
    } catch {
      // the page says less without it
    }
  }

  async explain() {
    try {
      this.explained = await get(`/v1/jobs/${this.job.job_id}/explain`, { signal: this.signal });
      this.update();
    } catch {
      // likewise
    }
  }

  render() {
    const { job } = this;
    if (job === null) {
      const text = this.error ?? "Loading …";
      return [
        h("h1", { tabindex: "-1" }, "Job"),
        h("p", { class: this.error ? "error" : "quiet", role: this.error && "alert" }, text),
        h("p", null, h("a", { href: "#/jobs" }, "All jobs")),
      ];
    }
    return [
      h("p", { class: "back" }, h("a", { href: "#/jobs" }, "Jobs")),
      h("h1", { tabindex: "-1" }, `${nameOf(job)} `, badge(job.status)),
      this.error && h("p", { class: "error", role: "alert" }, this.error),
      h("p", { class: "lead" }, timing(job)),
      this.warnings(),
      this.progress(),
      this.actions(),
      ["pending", "queued"].includes(job.status) && this.waiting(),
      this.entering(),
      this.output(),
      this.details(),
    ];
  }

  warnings() {
    const told = warningsOf(this.job);
    return told.length > 0 && h("ul", { class: "warnings" }, told.map((text) => h("li", { key: text }, text)));
  }

  progress() {
    const { job } = this;
    const reached = new Map(this.history.map((one) => [one.status === "pending" ? "queued" : one.status, one]));
    const last = OPEN.includes(job.status) ? "end" : job.status;
    const now = job.status === "pending" ? "queued" : job.status;
    return h(
      "ol",
      { class: "steps", "aria-label": "Progress" },
      [...STEPS, last].map((step) => {
        const at = reached.get(step)?.at;
        const state = step === now ? "now" : at ? "done" : "ahead";
        return h(
          "li",
          { key: step === last ? "end" : step, class: state, "aria-current": step === now ? "step" : null },
          h("span", null, step),
          h("small", null, at ? moment(at) : state === "ahead" ? "not yet" : ""),
        );
      }),
    );
  }

  actions() {
    const { job } = this;
    if (!OPEN.includes(job.status)) return null;
    const path = `/v1/jobs/${job.job_id}`;
    const cancel = async () => {
      if (await ask(`Cancel ${nameOf(job)}? What is not on its disk is lost.`, "Cancel the job"))
        await this.act("cancel", () => post(`${path}/cancel`, undefined, WAIT), { told: outcome("It is cancelled.") });
    };
    const extend = (event) => {
      event.preventDefault();
      const given = Number(new FormData(event.target).get("hours"));
      const told = outcome(`It has ${hours(given)} more.`);
      return this.act("extend", () => post(`${path}/extend`, { extension_hours: given }, WAIT), { told });
    };
    const number = { id: "extend-hours", name: "hours", type: "number", min: "0.1", max: "168", step: "0.1" };
    return h(
      "section",
      { key: "actions", "aria-label": "Actions", class: "actions" },
      job.status === "active" &&
        h(
          "form",
          { key: "extend", class: "inline", onsubmit: extend },
          h("label", { for: "extend-hours" }, "Extend by"),
          h("input", { ...number, value: "1", required: true }),
          h("span", null, "hours"),
          h("button", { disabled: this.busy === "extend" }, this.busy === "extend" ? "Extending …" : "Extend"),
        ),
      h(
        "button",
        { key: "cancel", type: "button", class: "danger", disabled: this.busy === "cancel", onclick: cancel },
        this.busy === "cancel" ? "Cancelling …" : "Cancel the job",
      ),
    );
  }

  waiting() {
    const found = this.explained;
    if (!found?.waiting) return null;
    return h(
      "section",
      { key: "waiting", "aria-labelledby": "waiting-head" },
      h("h2", { id: "waiting-head" }, "Why it waits"),
      h("p", null, found.reason),
      facts([
        ["Place", `${found.queue_position} (${found.jobs_ahead} jobs with ${found.gpus_ahead} GPUs ahead)`],
        ["Starts about", moment(found.estimated_start_time) ?? "not known"],
        ["With nine in ten before", moment(found.estimated_start_time_p90)],
      ]),
      found.would_start_sooner.length > 0 && [
        h("h3", null, "It would start sooner with"),
        h("ul", null, found.would_start_sooner.map((one) => h("li", { key: one.text }, one.text))),
      ],
    );
  }

  entering() {
    const { job } = this;
    if (job.status !== "active") return null;
    const path = `/v1/jobs/${job.job_id}`;
    const turn = (way) => () => {
      const told = outcome(way === "enable" ? "JupyterLab runs." : "JupyterLab is stopped.");
      return this.act("jupyter", () => post(`${path}/jupyter/${way}`, undefined, WAIT), { told });
    };
    const add = async (event) => {
      event.preventDefault();
      const form = event.target;
      const given = new FormData(form).get("github_username").trim();
      const told = outcome(`The keys of ${given} open it.`);
      await this.act("user", () => post(`${path}/users`, { github_username: given }, WAIT), { told });
      form.reset();
    };
    const opened = [job.github_user, ...job.secondary_users].filter(Boolean);
    return h(
      "section",
      { key: "entering", "aria-labelledby": "entering-head" },
      h("h2", { id: "entering-head" }, "Enter it"),
      job.ssh_command && copyable("the SSH command", job.ssh_command),
      copyable("the gpudev command", `gpudev ssh ${job.name ?? job.job_id.slice(0, 8)}`),
      h("p", { class: "hint" }, opened.length ? `The keys of ${opened.join(", ")} open it.` : "No keys open it yet."),
      h(
        "form",
        { class: "inline", onsubmit: add },
        h("label", { for: "add-user" }, "Add a GitHub user"),
        h("input", { id: "add-user", name: "github_username", required: true, maxlength: "39", autocomplete: "off" }),
        h("button", { disabled: this.busy === "user" }, this.busy === "user" ? "Adding …" : "Add"),
      ),
      h(
        "p",
        { class: "actions" },
        job.jupyter_url &&
          h("a", { class: "button", href: job.jupyter_url, target: "_blank", rel: "noopener" }, "Open JupyterLab"),
        h(
          "button",
          { type: "button", disabled: this.busy === "jupyter", onclick: turn(job.jupyter_enabled ? "disable" : "enable") },
          this.busy === "jupyter" ? "One moment …" : job.jupyter_enabled ? "Stop JupyterLab" : "Start JupyterLab",
        ),
      ),
    );
  }

  output() {
    if (["pending", "queued"].includes(this.job.status)) return null;
    const tellState = (state) => {
      if (state !== this.logState) say(`The log: ${state}.`);
      this.logState = state;
      this.update();
    };
    this.log ??= new LogPane(this.job.job_id, () => OPEN.includes(this.job.status), tellState);
    const attach = (this.attach ??= (node) => this.log.attach(node));
    return h(
      "section",
      { key: "log", "aria-labelledby": "log-head" },
      h("h2", { id: "log-head" }, "Log ", h("small", { class: "quiet" }, this.logState)),
      h("pre", { class: "log", opaque: true, ref: attach, role: "log", "aria-live": "off", tabindex: "0", "aria-label": "Log" }),
    );
  }

  details() {
    const { job } = this;
    return h(
      "section",
      { key: "details", "aria-labelledby": "details-head" },
      h("h2", { id: "details-head" }, "Details"),
      facts([
        ["GPUs", `${gpus(job)} (${job.instance_type})`],
        ["Image", h("code", null, job.image)],
        ["Command", job.command && h("code", null, job.command)],
        ["Duration", hours(job.duration_hours)],
        ["Submitted", moment(job.created_at)],
        ["Started", moment(job.launched_at)],
        ["Ends", OPEN.includes(job.status) && job.expires_at && secondsUntil(job.expires_at) > 0 && moment(job.expires_at)],
        ["Ended", moment(job.ended_at)],
        ["Exit code", job.exit_code === null ? null : String(job.exit_code)],
        ["Disk", job.disk_name],
        ["Pod", job.pod_name],
        ["Variables", job.env_var_names.join(", ")],
        ["Id", h("code", null, job.job_id)],
      ]),
    );
  }
}
