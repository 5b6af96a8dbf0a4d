import { get, post, query, textOf } from "./api.js";
import { moment } from "./time.js";
import { field, h, tell } from "./ui.js";
import { View } from "./view.js";

const NEW_DISK = "+new";

export class SubmitView extends View {
  title = "Submit";
  topics = "jobs,disks,cluster";
  choices = [];
  chosen = null;
  duration = "4";
  disks = [];
  disk = "";
  image = "";
  refusal = null;

  start() {
    this.readChoices();
    return this.load(async () => {
      const [disks, last] = await Promise.all([
        get("/v1/disks?limit=500", { signal: this.signal }),
        get("/v1/jobs?limit=1", { signal: this.signal }),
      ]);
      this.disks = disks.disks;
      this.image ||= last.jobs[0]?.image ?? "";
    });
  }

  onEvent() {
    this.onResync();
  }

  onResync() {
    this.soon("choices", () => this.readChoices(), 500);
  }

  async readChoices() {
    const hours = Number(this.duration);
    if (!(hours > 0)) return;
    this.asked = hours;
    try {
      const answer = await get(`/v1/gpu/estimates?${query({ duration_hours: hours })}`, { signal: this.signal });
      if (this.asked !== hours) return;
      this.choices = answer.choices;
      this.choicesError = null;
      if (!this.choices.some((one) => keyOf(one) === this.chosen)) {
        this.chosen = keyOf(this.choices.find((one) => one.starts_now) ?? this.choices[0] ?? {});
      }
    } catch (error) {
      if (this.signal.aborted) return;
      this.choicesError = textOf(error);
    }
    this.update();
  }

  async submit(event) {
    event.preventDefault();
    const given = new FormData(event.target);
    const form = event.target;
    for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
    const choice = this.choices.find((one) => keyOf(one) === this.chosen);
    const text = (name) => given.get(name)?.trim() || undefined;
    this.refusal = null;
    let body;
    try {
      body = {
        image: text("image"),
        instance_type: choice?.instance_type,
        gpu_count: choice?.gpu_count,
        duration_hours: Number(this.duration),
        name: text("name"),
        command: text("command"),
        working_dir: text("working_dir"),
        github_user: text("github_user"),
        jupyter_enabled: given.has("jupyter_enabled") || undefined,
        env_vars: readVariables(given.get("env_vars")),
        disk_name: this.disk === NEW_DISK ? text("new_disk") : this.disk || undefined,
        disk_size_gb: this.disk === NEW_DISK ? Number(given.get("disk_size_gb")) : undefined,
      };
    } catch (error) {
      this.refusal = error.message;
      this.update();
      this.mark(form, ["env_vars"]);
      return;
    }
    this.busy = "submit";
    this.update();
    try {
      const answer = await post("/v1/jobs/submit", body);
      tell("The job is submitted.");
      location.hash = `#/jobs/${answer.job_id}`;
    } catch (error) {
      this.refusal = textOf(error);
      this.mark(form, (error.problems ?? []).map((one) => one.loc.at(-1)));
    } finally {
      this.busy = null;
      this.update();
    }
  }

  /** The fields that the refusal is about; the focus goes to the first of them. */
  mark(form, names) {
    const ids = { duration_hours: "duration", disk_name: this.disk === NEW_DISK ? "new_disk" : "disk" };
    const controls = names.map((name) => form.querySelector(`#${ids[name] ?? name}`)).filter(Boolean);
    for (const control of controls) {
      control.setAttribute("aria-invalid", "true");
      control.closest("details")?.setAttribute("open", "");
    }
    controls[0]?.focus();
  }

  render() {
    const plain = { autocomplete: "off", autocapitalize: "off", spellcheck: "false" };
    const setDuration = (event) => {
      this.duration = event.target.value;
      this.soon("choices", () => this.readChoices(), 250);
    };
    return [
      h("h1", { tabindex: "-1" }, "Submit a job"),
      this.error && h("p", { class: "error", role: "alert" }, this.error),
      h(
        "form",
        { class: "submit", onsubmit: (event) => this.submit(event) },
        field("Image", h("input", { id: "image", name: "image", required: true, value: this.image, ...plain,
          oninput: (event) => (this.image = event.target.value) }), "registry/name:tag, with all that the job needs"),
        field("Hours", h("input", { id: "duration", type: "number", min: "0.1", max: "72", step: "0.1", required: true,
          value: this.duration, oninput: setDuration }), "It can be extended while it runs."),
        this.gpuChoices(),
        field("Command", h("textarea", { id: "command", name: "command", rows: "3", ...plain }),
          "For /bin/sh. Without one the job idles, to be entered, until its time is up."),
        field("Name", h("input", { id: "name", name: "name", maxlength: "63", ...plain }),
          "Lower-case letters, digits and hyphens"),
        field("GitHub user", h("input", { id: "github_user", name: "github_user", maxlength: "39", ...plain }),
          "Whose SSH keys open the job"),
        this.diskChoice(plain),
        h(
          "details",
          { class: "more-fields" },
          h("summary", null, "More"),
          field("Variables", h("textarea", { id: "env_vars", name: "env_vars", rows: "3", ...plain }),
            "NAME=value, one a line"),
          field("Working directory", h("input", { id: "working_dir", name: "working_dir", ...plain })),
          h("div", { class: "field check" },
            h("input", { id: "jupyter_enabled", name: "jupyter_enabled", type: "checkbox" }),
            h("label", { for: "jupyter_enabled" }, "Start JupyterLab")),
        ),
        this.refusal && h("p", { class: "error", role: "alert" }, this.refusal),
        h("button", { class: "primary", disabled: this.busy === "submit" }, this.busy ? "Submitting …" : "Submit"),
      ),
    ];
  }

  gpuChoices() {
    return h(
      "fieldset",
      { class: "choices" },
      h("legend", null, "GPUs, and when they would be yours"),
      this.choicesError && h("p", { class: "error", role: "alert" }, this.choicesError),
      this.choices.length === 0 && !this.choicesError && h("p", { class: "quiet" }, "Looking …"),
      this.choices.map((one) => {
        const key = keyOf(one);
        const id = `choice-${key}`;
        const choose = () => {
          this.chosen = key;
          this.update();
        };
        return h(
          "div",
          { key, class: `choice ${one.starts_now ? "now" : ""}` },
          h("input", { id, type: "radio", name: "choice", value: key, checked: this.chosen === key, onchange: choose }),
          h("label", { for: id },
            h("b", null, `${one.gpu_count} × ${one.gpu_type}`),
            h("small", null, startOf(one))),
        );
      }),
    );
  }

  diskChoice(plain) {
    const change = (event) => {
      this.disk = event.target.value;
      this.update();
    };
    const isUsable = (disk) => !disk.is_deleted && !disk.in_use;
    return [
      field("Disk", h("select", { id: "disk", onchange: change },
        h("option", { key: "none", value: "" }, "None: what it writes ends with it"),
        this.disks.filter(isUsable).map((disk) =>
          h("option", { key: disk.disk_name, value: disk.disk_name }, `${disk.disk_name} (${disk.size_gb} GB)`)),
        h("option", { key: "new", value: NEW_DISK }, "A new one …"))),
      this.disk === NEW_DISK &&
        h("div", { key: "new-disk", class: "pair" },
          field("Name of the new disk", h("input", { id: "new_disk", name: "new_disk", required: true, ...plain })),
          field("GB", h("input", { id: "disk_size_gb", name: "disk_size_gb", type: "number", min: "10", value: "100" }))),
    ];
  }
}

const keyOf = (one) => `${one.instance_type}:${one.gpu_count}`;

function startOf(one) {
  if (one.starts_now) return "now";
  if (one.estimated_start_time === null) return one.reason ?? "nobody can say when";
  const late = one.estimated_start_time_p90;
  return ["about ", moment(one.estimated_start_time), late && [", nine in ten before ", moment(late)]];
}

function readVariables(text) {
  const lines = (text ?? "").split("\n").filter((line) => line.trim());
  if (lines.length === 0) return undefined;
  return Object.fromEntries(
    lines.map((line) => {
      const [name, value] = [line.slice(0, line.indexOf("=")).trim(), line.slice(line.indexOf("=") + 1)];
      if (!name || !line.includes("=")) throw new Error(`Variables: "${line.slice(0, 20)}" is not NAME=value`);
      return [name, value];
    }),
  );
}
