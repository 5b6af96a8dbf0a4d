// Which view is shown, who looks at it, and the events that keep it true.

import { endSession, onSessionEnd, planRenewal, beginSession, remove, textOf, user } from "./api.js";
import { DisksView } from "./disks.js";
import { EventFollower } from "./events.js";
import { FleetView } from "./fleet.js";
import { JobView } from "./job.js";
import { JobsView } from "./jobs.js";
import { KeysView } from "./keys.js";
import { LoginView, logInByCode, readIdentity } from "./login.js";
import { OperateView } from "./operate.js";
import { QueueView } from "./queue.js";
import { SubmitView } from "./submit.js";
import { h, render, say, tell } from "./ui.js";
import { UsageView } from "./usage.js";

const VIEWS = [
  { path: "jobs", text: "Jobs", view: JobsView, one: JobView },
  { path: "submit", text: "Submit", view: SubmitView },
  { path: "fleet", text: "Fleet", view: FleetView },
  { path: "queue", text: "Queue", view: QueueView },
  { path: "disks", text: "Disks", view: DisksView },
  { path: "usage", text: "Usage", view: UsageView },
  { path: "keys", text: "Keys", view: KeysView },
  { path: "operate", text: "Operate", view: OperateView, forOperators: true },
];
const TOPICS = "jobs,disks";
const main = document.getElementById("main");
const header = document.getElementById("header");

let current = null;
let follower = null;
let isLive = null;
let isPlanned = false;
let shownRoute = null;

function update() {
  if (isPlanned) return;
  isPlanned = true;
  requestAnimationFrame(() => {
    isPlanned = false;
    render(main, headed(current.render()));
    render(header, shell());
    document.title = `${current.title} – GPU Dev`;
  });
}

/** Each view has a heading of its own: of one that was another's the name of before would be read. */
function headed(nodes) {
  return nodes.map((node) => (node?.tag === "h1" ? { ...node, key: `heading of ${shownRoute}` } : node));
}

function shell() {
  const who = user();
  return [
    h("a", { class: "brand", href: "#/jobs" }, h("img", { src: "/console/assets/icon.svg", alt: "", width: "24", height: "24" }), "GPU Dev"),
    who && h("nav", { key: "nav", "aria-label": "Console" }, h("ul", null, VIEWS.filter(isFor(who)).map(link))),
    who &&
      h(
        "div",
        { key: "who", class: "who" },
        h("span", { class: `live ${isLive ? "on" : "off"}` }, isLive === false ? "reconnecting …" : isLive ? "live" : ""),
        h("span", { class: "name" }, who.username, who.is_operator && " (operator)"),
        h("button", { type: "button", onclick: logOut }, "Log out"),
      ),
  ];
}

const isFor = (who) => (one) => !one.forOperators || who.is_operator;

function link({ path, text }) {
  const isHere = shownRoute?.split("/")[0] === path;
  return h("li", { key: path }, h("a", { href: `#/${path}`, "aria-current": isHere ? "page" : null }, text));
}

async function logOut() {
  const prefix = user()?.key_prefix;
  follower?.stop();
  follower = null;
  try {
    await remove(`/v1/keys/${prefix}`);
  } catch (error) {
    tell(`The key was forgotten here, but not revoked: ${textOf(error)}`, { isError: true });
  }
  if (user() !== null) endSession();
}

function show(view) {
  current?.stop();
  current = view;
  update();
  view.start();
  follow(view);
  requestAnimationFrame(() => requestAnimationFrame(() => main.querySelector("h1")?.focus({ preventScroll: true })));
  scrollTo(0, 0);
}

/** One stream of events for the page; another one only when a view wants to hear of something else. */
function follow(view) {
  if (user() === null) {
    follower?.stop();
    follower = null;
    isLive = null;
    return;
  }
  const topics = view.topics ?? TOPICS;
  const wanted = `${topics} ${view.whose ?? ""}`;
  if (follower?.wanted === wanted) return;
  follower?.stop();
  isLive = null;
  follower = new EventFollower(topics, {
    whose: view.whose,
    onEvent: (event) => current.onEvent(event),
    // what has happened between the first look and the first event is looked at once more
    onOpen: () => current.onResync(),
    onResync: () => current.onResync(),
    onState: (state) => {
      if (state !== isLive) {
        if (state === false) say("Reconnecting …");
        else if (isLive === false) say("Live again.");
        isLive = state;
        update();
      }
    },
  });
  follower.wanted = wanted;
}

function route() {
  if (user() === null) return;
  const path = location.hash.replace(/^#\//, "") || "jobs";
  if (path === shownRoute) return;
  const [head, ...parameters] = path.split("/");
  const found = VIEWS.filter(isFor(user())).find((one) => one.path === head) ?? VIEWS[0];
  shownRoute = path;
  show(parameters.length && found.one ? new found.one(update, parameters) : new found.view(update, []));
}

function logIn(reason) {
  shownRoute = null;
  show(new LoginView(update, { reason, done: enter }));
}

async function enter() {
  beginSession({}, { is_operator: await readIdentity() });
  shownRoute = null;
  route();
}

async function begin() {
  onSessionEnd(logIn);
  addEventListener("hashchange", async () => (await takeCode()) || route());
  addEventListener("click", skip);
  setInterval(update, 1000);
  if (await takeCode()) return;
  if (user() !== null && new Date(user().expires_at) > new Date()) {
    planRenewal();
    route();
  } else {
    logIn(user() === null ? undefined : "Your session has ended: log in again.");
  }
}

/** Logs in by a one-time link, if the address is one; of its code nothing stays in the history. */
async function takeCode() {
  const code = location.hash.match(/^#code=(.+)$/)?.[1];
  if (code === undefined) return false;
  history.replaceState(null, "", "/console");
  try {
    await logInByCode(code);
    await enter();
  } catch (error) {
    logIn(textOf(error));
  }
  return true;
}

/** The link to the content leads to it, and not to another view. */
function skip(event) {
  if (!event.target.closest?.("a.skip")) return;
  event.preventDefault();
  main.focus();
}

begin();
