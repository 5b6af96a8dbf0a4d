// What all views have: their data comes by `load`, and ends with them.

import { textOf } from "./api.js";
import { tell } from "./ui.js";

export class View {
  title = "";
  error = null;
  isLoading = true;
  busy = null;

  constructor(update, parameters) {
    this.update = update;
    this.parameters = parameters;
    this.ending = new AbortController();
    this.timers = new Map();
    this.reading = Promise.resolve();
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
  load(read) {
    this.reading = this.reading.then(() => this.read(read));
    return this.reading;
  }

  async read(read) {
    if (this.signal.aborted) return;
    try {
      await read();
      this.error = null;
    } catch (error) {
      if (this.signal.aborted) return;
      this.error = textOf(error);
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
