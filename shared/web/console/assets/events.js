// Server-sent events over fetch: the browser's own EventSource cannot send a key.

import { open, query } from "./api.js";

const SILENT_MS = 40_000; // the service gives a sign of life every 15 s
const LONGEST_PAUSE_MS = 30_000;

/** Follows events until `stop`; after a break it goes on where it was, so that nothing is left out. */
export class EventFollower {
  constructor(topics, { whose, onEvent, onOpen, onResync, onState }) {
    this.path = `/v1/events?${query({ topics, user: whose })}`;
    Object.assign(this, { onEvent, onOpen, onResync, onState });
    this.lastId = undefined;
    this.stopped = new AbortController();
    this.run();
  }

  stop() {
    this.stopped.abort();
  }

  async run() {
    let pause = 500;
    while (!this.stopped.signal.aborted) {
      const attempt = new AbortController();
      const end = () => attempt.abort();
      this.stopped.signal.addEventListener("abort", end);
      let watch;
      const alive = () => {
        clearTimeout(watch);
        watch = setTimeout(end, SILENT_MS);
      };
      try {
        alive();
        const headers = this.lastId === undefined ? {} : { "Last-Event-ID": this.lastId };
        const answer = await open("GET", this.path, { headers, signal: attempt.signal });
        this.onState(true);
        if (this.lastId === undefined) this.onOpen();
        pause = 500;
        await this.read(answer.body, alive);
      } catch (error) {
        if (this.stopped.signal.aborted) break;
        this.onState(false, error);
        if (error.status === 401) break;
      } finally {
        clearTimeout(watch);
        this.stopped.signal.removeEventListener("abort", end);
      }
      await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random())));
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }

  async read(body, alive) {
    const decoder = new TextDecoder();
    const reader = body.getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      text += decoder.decode(value, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) this.take(block);
    }
  }

  take(block) {
    let kind;
    let data;
    for (const line of block.split("\n")) {
      const [name, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)];
      if (name === "id") this.lastId = value;
      else if (name === "event") kind = value;
      else if (name === "data") data = value;
    }
    if (kind === "resync") this.onResync();
    else if (kind === undefined && data !== undefined) this.onEvent(JSON.parse(data));
  }
}
