import { get, post, query, user as self } from "./api.js";
import { OPEN, gpus, nameOf, timing } from "./jobs.js";
import { Orphans } from "./orphans.js";
import { moment } from "./time.js";
import { ask, badge, facts, h, say, table } from "./ui.js";
import { View } from "./view.js";

const PAGE = 100;

export class OperateView extends View {
  title = "Operate";
  topics = "jobs,cluster";
  whose = "*";
  shown = PAGE;
  jobs = [];
  total = 0;
  users = [];
  userTotal = 0;
  who = "*";
  entries = [];
  older = null;
  sought = {};
  orphans = new Orphans(this);

  start() {
    this.load(() => this.readJobs(), "jobs");
    this.load(() => this.readUsers(), "users");
    this.load(() => this.readAudit(), "audit");
    this.load(() => this.readState());
    this.orphans.look();
  }

  async readJobs() {
    const wanted = { user: this.who, status: OPEN.join(","), limit: this.shown };
    ({ jobs: this.jobs, total: this.total } = await get(`/v1/jobs?${query(wanted)}`, { signal: this.signal }));
  }

  /** What somebody asked for, and what came of it. */
  async find(read, part, told) {
    await this.load(read, part);
    if (!this.errors.has(part)) say(told());
  }

  async readState() {
    this.status = await get("/v1/cluster/status", { signal: this.signal });
    const before = this.health?.status;
    this.health = await get("/health", { signal: this.signal, isPublic: true, unhealthy: true });
    if (before !== undefined && before !== this.health.status) say(`The state is ${this.health.status}.`);
  }

  async readUsers() {
    ({ users: this.users, total: this.userTotal } = await get("/v1/auth/users?limit=500", { signal: this.signal }));
  }

  async readAudit(before) {
    const page = await get(`/v1/audit?${query({ ...this.sought, before, limit: 50 })}`, { signal: this.signal });
    this.entries = before === undefined ? page.entries : [...this.entries, ...page.entries];
    this.older = page.next;
  }

  onEvent() {
    this.onResync();
  }

  onResync() {
    this.soon("jobs", () => this.load(() => this.readJobs(), "jobs"), 1000);
    this.soon("state", () => this.load(() => this.readState()), 2000);
  }

  render() {
    return [
      h("h1", { tabindex: "-1" }, "Operate"),
      this.error && h("p", { class: "error", role: "alert" }, this.error),
      this.state(),
      this.everybodysJobs(),
      this.orphans.render(),
      this.audit(),
      this.everybody(),
    ];
  }

  state() {
    const { status, health } = this;
    if (!status || !health) return null;
    const faults = Object.values(health.services).flatMap((one) => one.faults.map((text) => `${one.service}: ${text}`));
    const { forecast } = status;
    const forecasts = forecast.share === null
      ? "no start that had a forecast yet"
      : `${(forecast.share * 100).toFixed(1)} % of ${forecast.starts} starts in 30 days came before their p90 (it aims at 90 %)`;
    return h(
      "section",
      { key: "state", "aria-labelledby": "state-head" },
      h("h2", { id: "state-head" }, "State ", badge(health.status)),
      faults.length > 0 && h("ul", { class: "warnings" }, faults.map((text) => h("li", { key: text }, text))),
      facts([
        ["GPUs", `${status.available_gpus} of ${status.total_gpus} free, ${status.queued_gpus} waited for`],
        ["Jobs", `${status.active_reservations} active, ${status.preparing_reservations} preparing, ` +
          `${status.queued_reservations + status.pending_reservations} waiting`],
        ["Forecasts", forecasts],
      ]),
      h("p", { class: "hint" }, "Priorities are set in the ", h("a", { href: "#/queue" }, "queue"), "."),
    );
  }

  everybodysJobs() {
    const choose = (event) => {
      event.preventDefault();
      this.who = new FormData(event.target).get("user").trim() || "*";
      this.find(() => this.readJobs(), "jobs", () => `Open jobs: ${this.total}.`);
    };
    const more = () => {
      this.shown = 500;
      this.load(() => this.readJobs(), "jobs");
    };
    return h(
      "section",
      { key: "jobs", "aria-labelledby": "jobs-head" },
      h("h2", { id: "jobs-head" }, "Open jobs ", h("span", { class: "count" }, this.total.toLocaleString())),
      h(
        "form",
        { class: "inline", onsubmit: choose },
        h("label", { for: "of-user" }, "Of the user"),
        h("input", { id: "of-user", name: "user", placeholder: "everybody", maxlength: "64", autocomplete: "off" }),
        h("button", null, "Show"),
      ),
      table(
        "Open jobs, newest first",
        ["User", "Job", "Status", "GPUs", "Time", "Cancel"],
        this.jobs.map((job) => ({
          key: job.job_id,
          cells: [
            job.user_id,
            h("span", { title: job.job_id }, nameOf(job)),
            badge(job.status),
            gpus(job),
            timing(job),
            this.cancelling(job),
          ],
        })),
        this.isLoading ? "Loading …" : "Nothing runs or waits.",
      ),
      this.jobs.length < this.total &&
        h("p", null, `${this.jobs.length} are shown. `,
          this.shown < 500 && h("button", { type: "button", onclick: more }, "Show more")),
    );
  }

  cancelling(job) {
    const cancel = async () => {
      if (!(await ask(`Cancel ${nameOf(job)} of ${job.user_id}?`, "Cancel the job"))) return;
      await this.act("cancel", () => post(`/v1/jobs/${job.job_id}/cancel?reason=by%20an%20operator`));
    };
    const label = `Cancel ${nameOf(job)} of ${job.user_id}`;
    return h("button", { type: "button", class: "danger", "aria-label": label, onclick: cancel }, "Cancel");
  }

  audit() {
    const seek = (event) => {
      event.preventDefault();
      const given = new FormData(event.target);
      this.sought = { user: given.get("by").trim() || undefined, object: given.get("object").trim() || undefined };
      this.find(() => this.readAudit(), "audit", () => `What was done: ${this.entries.length} are shown.`);
    };
    const more = () => this.load(() => this.readAudit(this.older), "audit");
    return h(
      "section",
      { key: "audit", "aria-labelledby": "audit-head" },
      h("h2", { id: "audit-head" }, "What was done"),
      h(
        "form",
        { class: "inline", onsubmit: seek },
        h("label", { for: "audit-by" }, "By"),
        h("input", { id: "audit-by", name: "by", placeholder: "everybody", maxlength: "64", autocomplete: "off" }),
        h("label", { for: "audit-object" }, "to"),
        h("input", { id: "audit-object", name: "object", placeholder: "id or name", maxlength: "128", autocomplete: "off" }),
        h("button", { "aria-label": "Look for what was done" }, "Look"),
      ),
      table(
        "What was done, newest first",
        ["When", "Who", "What", "To", "From"],
        this.entries.map((one, place) => ({
          key: `${one.at} ${one.request_id ?? place} ${one.action} ${one.object_id}`,
          cells: [
            moment(one.at),
            one.username ?? "an administrator",
            h("code", null, one.action),
            `${one.object_kind} ${one.object_name ?? one.object_id.slice(0, 17)}`,
            one.address ?? "",
          ],
        })),
        this.isLoading ? "Loading …" : "Nothing.",
      ),
      this.older && h("p", null, h("button", { type: "button", onclick: more }, "Show older")),
    );
  }

  changing(user) {
    if (user.user_id === self().user_id) return "";
    const [verb, text] = user.disabled_at
      ? ["Enable", `Let ${user.username} (${user.user_id}) log in again?`]
      : ["Disable", `Disable ${user.username} (${user.user_id})? Their keys are revoked and their jobs cancelled.`];
    const change = async () => {
      if (!(await ask(text, `${verb} the user`))) return;
      const path = `/v1/auth/users/${user.user_id}/${verb.toLowerCase()}`;
      const after = () => Promise.all([
        this.load(() => this.readUsers(), "users"),
        this.load(() => this.readAudit(), "audit"),
      ]);
      await this.act(verb, () => post(path), { after });
    };
    const label = `${verb} ${user.username} (${user.user_id})`;
    const look = verb === "Disable" && "danger";
    return h("button", { type: "button", class: look, "aria-label": label, onclick: change }, verb);
  }

  everybody() {
    return h(
      "section",
      { key: "users", "aria-labelledby": "users-head" },
      h("h2", { id: "users-head" }, "Users ", h("span", { class: "count" }, this.userTotal.toLocaleString())),
      table(
        "Users, who logged in last first",
        ["User", "Id", "Account", "Last log-in", "First log-in", "State", "Change"],
        this.users.map((user) => ({
          key: String(user.user_id),
          cells: [
            user.username,
            String(user.user_id),
            user.account,
            moment(user.last_login_at),
            moment(user.created_at),
            user.disabled_at ? badge("disabled") : user.is_operator ? badge("operator") : "",
            this.changing(user),
          ],
        })),
        this.isLoading ? "Loading …" : "Nobody has logged in yet.",
      ),
    );
  }
}
