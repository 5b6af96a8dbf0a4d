import { get } from "./api.js";
import { nameOf } from "./jobs.js";
import { moment } from "./time.js";
import { h } from "./ui.js";
import { View } from "./view.js";

const STATES = {
  free: "free",
  own: "yours",
  others: "others'",
  foreign: "held by something else in the cluster",
  withheld: "free, without the CPU or memory that a job needs",
};

function count(nodes) {
  const counts = new Map();
  for (const node of nodes) for (const gpu of node.gpus) counts.set(gpu.state, (counts.get(gpu.state) ?? 0) + 1);
  return counts;
}

const told = (counts) =>
  Object.entries(STATES)
    .filter(([state]) => counts.has(state))
    .map(([state, text]) => `${counts.get(state)} ${text}`)
    .join(", ");

export class FleetView extends View {
  title = "Fleet";
  topics = "jobs,cluster";
  answer = null;

  start() {
    return this.load(async () => {
      this.answer = await get("/v1/cluster/nodes", { signal: this.signal });
    });
  }

  onEvent() {
    this.onResync();
  }

  onResync() {
    this.soon("fleet", () => this.start(), 500);
  }

  render() {
    const types = grouped(this.answer?.nodes ?? []);
    return [
      h("h1", { tabindex: "-1" }, "Fleet"),
      this.error && h("p", { class: "error", role: "alert" }, this.error),
      this.isLoading && h("p", { class: "quiet" }, "Loading …"),
      this.answer !== null && types.size === 0 && h("p", { class: "quiet" }, "The cluster has no GPU nodes now."),
      types.size > 0 && this.legend(),
      [...types].map(([gpuType, nodes]) => this.type(gpuType, nodes)),
      this.answer?.as_of && h("p", { class: "quiet" }, "As of ", moment(this.answer.as_of), "."),
    ];
  }

  legend() {
    return h(
      "ul",
      { class: "legend", "aria-label": "What the squares mean" },
      Object.entries(STATES).map(([state, text]) => h("li", { key: state }, h("i", { class: `gpu ${state}` }), text)),
    );
  }

  type(gpuType, nodes) {
    const usable = nodes.filter((node) => node.ready && node.schedulable);
    const free = count(usable).get("free") ?? 0;
    const total = usable.reduce((sum, node) => sum + node.total, 0);
    const id = `type-${gpuType}`;
    return h(
      "section",
      { key: gpuType, "aria-labelledby": id },
      h("h2", { id }, `${gpuType} `, h("span", { class: "count" }, `${free} of ${total} free`)),
      h("ul", { class: "nodes" }, nodes.map((node) => this.node(node))),
    );
  }

  node(node) {
    const state = !node.ready ? "not ready" : !node.schedulable ? "cordoned" : null;
    const own = new Map(node.gpus.filter((gpu) => gpu.job_id).map((gpu) => [gpu.job_id, gpu]));
    return h(
      "li",
      { key: node.name, class: `node ${!node.ready ? "dead" : !node.schedulable ? "cordoned" : ""}` },
      h("h3", null, `${node.name} `, state && h("span", { class: "badge failed" }, state)),
      h(
        "div",
        { class: "gpus", role: "img", "aria-label": `${node.total} GPUs: ${told(count([node]))}` },
        node.gpus.map((gpu, place) =>
          h("i", { key: String(place), class: `gpu ${gpu.state}`, title: `GPU ${place}: ${STATES[gpu.state]}` }),
        ),
      ),
      own.size > 0 &&
        h(
          "p",
          { class: "jobs-here" },
          [...own.keys()].map((id) =>
            own.get(id).state === "own"
              ? h("a", { key: id, href: `#/jobs/${id}` }, h("span", { class: "unseen" }, "Your job "), nameOf({ name: null, job_id: id }))
              : h("code", { key: id }, id.slice(0, 8)),
          ),
        ),
    );
  }
}

function grouped(nodes) {
  const types = new Map();
  for (const node of nodes) types.set(node.gpu_type, [...(types.get(node.gpu_type) ?? []), node]);
  return types;
}
