import { get, query, user } from "./api.js";
import { h, table } from "./ui.js";
import { View } from "./view.js";

const DAY_MS = 86_400_000;
const [WIDEST, HEIGHT, LEFT, BOTTOM] = [640, 220, 44, 24];
const dayName = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", timeZone: "UTC" });
const number = {
  format: (value) => value.toLocaleString(undefined, { maximumFractionDigits: value < 1 ? 3 : 1 }),
};

export class UsageView extends View {
  title = "Usage";
  topics = "jobs";
  days = "30";
  whose = undefined;
  ofAll = false;
  answer = null;

  start() {
    return this.load(async () => {
      const from = new Date(Date.now() - (Number(this.days) - 1) * DAY_MS).toISOString().slice(0, 10);
      const wanted = { from, user: this.ofAll ? "*" : undefined };
      this.answer = await get(`/v1/usage?${query(wanted)}`, { signal: this.signal });
    });
  }

  onEvent(event) {
    if (event.type.includes(".jobs.")) this.soon("usage", () => this.start(), 2000);
  }

  onResync() {
    this.soon("usage", () => this.start());
  }

  render() {
    const rows = this.answer?.rows ?? [];
    const setDays = (event) => {
      this.days = event.target.value;
      this.start();
    };
    const setAll = (event) => {
      this.ofAll = event.target.checked;
      this.start();
    };
    const total = rows.reduce((sum, row) => sum + row.gpu_hours, 0);
    return [
      h("h1", { tabindex: "-1" }, "Usage"),
      this.error && h("p", { class: "error", role: "alert" }, this.error),
      h(
        "div",
        { class: "actions" },
        h("label", { for: "days" }, "The last"),
        h("select", { id: "days", onchange: setDays },
          ["7", "30", "90"].map((one) => h("option", { key: one, value: one, selected: one === this.days }, `${one} days`))),
        user()?.is_operator &&
          h("span", { class: "check" },
            h("input", { id: "of-all", type: "checkbox", onchange: setAll }),
            h("label", { for: "of-all" }, "Everybody's")),
      ),
      this.answer !== null && h("p", { class: "lead" }, `${number.format(total)} GPU hours`),
      this.isLoading && h("p", { class: "quiet" }, "Loading …"),
      rows.length > 0 ? this.plot(rows) : this.answer && h("p", { class: "quiet" }, "No GPU was used in these days."),
      rows.length > 0 && this.numbers(rows),
    ];
  }

  plot(rows) {
    const types = [...new Set(rows.map((row) => row.gpu_type))].sort();
    const days = [];
    for (let at = new Date(this.answer.from); at <= new Date(this.answer.to); at = new Date(+at + DAY_MS))
      days.push(at.toISOString().slice(0, 10));
    const sums = new Map();
    for (const row of rows) {
      const key = `${row.date} ${row.gpu_type}`;
      sums.set(key, (sums.get(key) ?? 0) + row.gpu_hours);
    }
    const of = (day, type) => sums.get(`${day} ${type}`) ?? 0;
    const most = Math.max(...days.map((day) => types.reduce((sum, type) => sum + of(day, type), 0)));
    const step = niceStep(most / 4);
    const top = Math.ceil(most / step) * step;
    // as wide as there is room for, so that its letters are never smaller than they are meant to be
    const width = Math.min(WIDEST, Math.max(280, document.getElementById("main").clientWidth - 24));
    const scale = (HEIGHT - BOTTOM - 8) / top;
    const slot = (width - LEFT) / days.length;
    const lines = [];
    for (let value = 0; value <= top + step / 2; value += step) {
      const y = HEIGHT - BOTTOM - value * scale;
      lines.push(
        h("line", { key: `line-${value}`, x1: LEFT, x2: width, y1: y, y2: y }),
        h("text", { key: `text-${value}`, x: LEFT - 6, y: y + 4, "text-anchor": "end" }, number.format(value)),
      );
    }
    const bars = days.flatMap((day, place) => {
      let base = 0;
      return types.map((type, kind) => {
        const height = of(day, type) * scale;
        base += height;
        if (height === 0) return null;
        const box = { x: LEFT + place * slot + slot * 0.15, y: HEIGHT - BOTTOM - base, width: slot * 0.7, height };
        const text = `${day}: ${number.format(of(day, type))} hours of ${type}`;
        return h("rect", { key: `${day} ${type}`, class: `bar-${kind % 5}`, ...box }, h("title", null, text));
      });
    });
    const every = Math.ceil((days.length * 70) / (width - LEFT));
    const names = days.map((day, place) =>
      place % every
        ? null
        : h("text", { key: day, x: LEFT + (place + 0.5) * slot, y: HEIGHT - 6, "text-anchor": "middle" },
            dayName.format(new Date(day))),
    );
    const label = `GPU hours of each day, from ${this.answer.from} to ${this.answer.to}, by type; the table below has the numbers`;
    return h(
      "figure",
      { key: "plot", class: "figure" },
      h("svg", { class: "plot", role: "img", "aria-label": label, viewBox: `0 0 ${width} ${HEIGHT}` }, lines, bars, names),
      h("ul", { class: "legend", "aria-label": "GPU types" },
        types.map((type, kind) => h("li", { key: type }, h("i", { class: `gpu mark-${kind % 5}` }), type))),
    );
  }

  numbers(rows) {
    return h(
      "details",
      { key: "numbers" },
      h("summary", null, "Numbers"),
      table(
        "GPU hours",
        ["Day (UTC)", "User", "GPU type", "GPU hours"],
        [...rows].reverse().map((row) => ({
          key: `${row.date} ${row.user_id} ${row.gpu_type}`,
          cells: [row.date, row.username, row.gpu_type, number.format(row.gpu_hours)],
        })),
        "",
      ),
    );
  }
}

/** 1, 2 or 5 times a power of ten, not below what is given. */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 0.001)));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= least * 0.999) ?? power;
}
