// A log that follows: text as it comes, at the end unless its reader has scrolled up.

import { open, textOf } from "./api.js";
import { say } from "./ui.js";

const TAIL = 2000;
const MOST_CHARACTERS = 1_000_000;
const QUIET_MS = 10_000;
const SPOKEN_CHARACTERS = 400;
const SPOKEN_MS = 2000;

export class LogPane {
  constructor(jobId, isOpen, tellState) {
    this.jobId = jobId;
    this.isOpen = isOpen;
    this.tellState = tellState;
    this.length = 0;
    this.recent = 0;
    this.repeatsUntil = 0;
    this.ending = new AbortController();
  }

  attach(node) {
    this.node = node;
    this.run();
  }

  stop() {
    this.ending.abort();
  }

  async run() {
    const path = `/v1/jobs/${this.jobId}/logs?follow=true&tail=${TAIL}`;
    for (let pause = 1000; !this.ending.signal.aborted; pause = Math.min(pause * 2, 30_000)) {
      try {
        this.tellState("following");
        const answer = await open("GET", path, { signal: this.ending.signal });
        // what comes at first after a break was there before
        if (this.length > 0) this.repeatsUntil = performance.now() + SPOKEN_MS;
        this.clear();
        await this.read(answer.body.getReader());
        // the answer ends with the job, and with the key that it was asked for with
        if (!this.isOpen()) {
          this.tellState("complete");
          return;
        }
        pause = 1000;
      } catch (error) {
        if (this.ending.signal.aborted) return;
        if (error.status !== undefined && error.status < 500 && error.status !== 429) {
          this.tellState(textOf(error));
          return;
        }
        this.tellState("interrupted; it goes on in a moment");
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  async read(reader) {
    const decoder = new TextDecoder();
    let lastAt = performance.now();
    let begins = true;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const text = decoder.decode(value, { stream: true });
      const quiet = performance.now() - lastAt;
      lastAt = performance.now();
      // a lone line end or space after so long only says that the service is there
      const isSign = (begins && text === "\n") || (quiet > QUIET_MS && (text === "\n" || text === " "));
      begins = false;
      if (!isSign) this.append(text);
    }
  }

  /**
   * New lines are said; of what pours in faster than anybody listens nothing is, it would never end. By the page and not by
   * the log itself, which would be read from its beginning each time.
   */
  sayLines(text) {
    this.recent += text.length;
    setTimeout(() => (this.recent -= text.length), SPOKEN_MS);
    const isNew = performance.now() > this.repeatsUntil;
    if (isNew && this.recent <= SPOKEN_CHARACTERS && text.trim()) say(text);
  }

  clear() {
    this.node.replaceChildren();
    this.length = 0;
  }

  append(text) {
    const { node } = this;
    this.sayLines(text);
    const follows = node.scrollHeight - node.scrollTop - node.clientHeight < 40;
    node.append(text);
    this.length += text.length;
    while (this.length > MOST_CHARACTERS && node.childNodes.length > 1) {
      this.length -= node.firstChild.length;
      node.firstChild.remove();
    }
    if (follows) node.scrollTop = node.scrollHeight;
  }
}
