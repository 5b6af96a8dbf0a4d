// What all views have: their data comes by `load`, and ends with them.

import { textOf } from "./api.js";
import { tell } from "./ui.js";

export class View {
  title = "";
  errors = new Map();
  isLoading = true;
  busy = null;

  constructor(update, parameters) {
    this.update = update;
    this.parameters = parameters;
    this.ending = new AbortController();
    this.timers = new Map();
    this.reading = Promise.resolve();
  }

  /** What went wrong with what is shown; each part has its own. */
  get error() {
    return [...new Set(this.errors.values())].join("; ") || null;
  }

  set error(text) {
    this.note("view", text);
  }

  note(part, text) {
    if (text) this.errors.set(part, text);
    else this.errors.delete(part);
  }

  get signal() {
    return this.ending.signal;
  }

  start() {}
  onEvent() {}
  onResync() {}

  stop() {
    this.ending.abort();
    for (const timer of this.timers.values()) clearTimeout(timer);
  }

  /** Reads what is shown, one after the other; an error is shown, and what was there before stays. */
  load(read, part = "view") {
    this.reading = this.reading.then(() => this.read(read, part));
    return this.reading;
  }

  async read(read, part) {
    if (this.signal.aborted) return;
    try {
      await read();
      this.note(part, null);
    } catch (error) {
      if (this.signal.aborted) return;
      this.note(part, textOf(error));
    }
    this.isLoading = false;
    if (!this.signal.aborted) this.update();
  }

  /** Does something that changes something, and tells how it went. */
  async act(name, action, { told = (answer) => answer.message, after } = {}) {
    this.busy = name;
    this.update();
    try {
      const answer = await action();
      tell(told(answer), { isError: answer.status === "refused" });
      await after?.(answer);
    } catch (error) {
      tell(textOf(error), { isError: true });
    } finally {
      this.busy = null;
      this.update();
    }
  }

  /** Does something soon, and once for all that ask for it until then. */
  soon(name, action, milliseconds = 300) {
    if (this.timers.has(name)) return;
    const run = () => {
      this.timers.delete(name);
      return action();
    };
    this.timers.set(name, setTimeout(run, milliseconds));
  }
}
