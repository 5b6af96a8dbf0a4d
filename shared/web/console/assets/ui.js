// A description of elements, and bringing the page to it: what is there stays, so that focus, selection and what was
// typed outlive an update. Text only ever becomes text.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, key: props?.key, children: children.flat(Infinity).filter(isShown) };
}

export function render(parent, ...nodes) {
  const focused = document.activeElement;
  const section = focused?.closest("section");
  patchChildren(parent, nodes.flat(Infinity).filter(isShown), parent.namespaceURI === SVG);
  if (focused !== document.activeElement) giveFocus(focused, section);
}

/** The focus goes back to where it was; if that is gone, to the heading of what it was in, never to nowhere. */
function giveFocus(wanted, section) {
  const heading = (section?.isConnected && section.querySelector("h2")) || document.querySelector("main h1");
  const heir = wanted?.isConnected && wanted !== document.body ? wanted : heading;
  if (heir === heading) heading?.setAttribute("tabindex", "-1");
  heir?.focus({ preventScroll: true });
}

// a button that is at work keeps the focus, which one that is disabled would lose; it does nothing meanwhile
addEventListener(
  "click",
  (event) => {
    if (event.target.closest?.('[aria-disabled="true"]') === null) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  },
  true,
);

// `key` says which element is which among its siblings, `ref` is called with the element once, and the children of an
// `opaque` one are somebody else's.

const isShown = (node) => node !== null && node !== undefined && node !== false && node !== true && node !== "";

function patchChildren(parent, wanted, inSvg) {
  const keyed = new Map();
  const others = [];
  for (const node of parent.childNodes) {
    if (node.wanted?.key !== undefined) keyed.set(node.wanted.key, node);
    else others.push(node);
  }
  const kept = new Set();
  let place = parent.firstChild;
  for (const one of wanted) {
    let node = one.key === undefined ? others.find((old) => !kept.has(old) && isSame(old, one)) : keyed.get(one.key);
    if (node === undefined || kept.has(node) || !isSame(node, one)) node = create(one, inSvg);
    else patch(node, one);
    kept.add(node);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  for (const node of [...parent.childNodes]) if (!kept.has(node)) node.remove();
}

const isSame = (node, wanted) =>
  wanted.tag === undefined ? node.nodeType === Node.TEXT_NODE : node.wanted?.tag === wanted.tag;

function create(wanted, inSvg) {
  if (wanted.tag === undefined) return document.createTextNode(String(wanted));
  const isSvg = inSvg || wanted.tag === "svg";
  const node = isSvg ? document.createElementNS(SVG, wanted.tag) : document.createElement(wanted.tag);
  node.wanted = { tag: wanted.tag, props: {} };
  node.isSvg = isSvg;
  patch(node, wanted);
  return node;
}

function patch(node, wanted) {
  if (wanted.tag === undefined) {
    if (node.data !== String(wanted)) node.data = String(wanted);
    return;
  }
  const before = node.wanted.props;
  for (const name of Object.keys(before)) if (!(name in wanted.props)) setProp(node, name, undefined);
  if (!wanted.props.opaque) patchChildren(node, wanted.children, node.isSvg);
  for (const [name, value] of Object.entries(wanted.props)) if (before[name] !== value) setProp(node, name, value);
  node.wanted = wanted;
}

function setProp(node, name, value) {
  if (name === "key" || name === "opaque") return;
  if (name === "ref") {
    value?.(node);
    return;
  }
  if (name.startsWith("on")) {
    node.handlers ??= {};
    const kind = name.slice(2);
    if (!(kind in node.handlers)) node.addEventListener(kind, (event) => node.handlers[kind]?.(event));
    node.handlers[kind] = value;
  } else if (name === "value" && "value" in node && node.tagName !== "PROGRESS" && node.tagName !== "LI") {
    // what a form begins with is what it goes back to
    if (!("value" in node.wanted.props)) node.defaultValue = value ?? "";
    if (node.value !== (value ?? "")) node.value = value ?? "";
  } else if (name === "disabled") {
    setProp(node, "aria-disabled", value ? "true" : null);
  } else if (name === "checked") {
    node.checked = Boolean(value);
  } else if (value === undefined || value === null || value === false) {
    node.removeAttribute(name);
  } else {
    node.setAttribute(name, value === true ? "" : value);
  }
}

// --- what the views are made of

export const badge = (status) => h("span", { class: `badge ${status}` }, status);

export const field = (label, control, hint) => {
  const id = control.props.id;
  if (hint) control.props["aria-describedby"] = `${id}-hint`;
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    control,
    hint && h("p", { class: "hint", id: `${id}-hint` }, hint),
  );
};

export const table = (caption, heads, rows, empty) =>
  rows.length === 0
    ? h("p", { class: "quiet" }, empty)
    : // the roles are said as well, since narrow screens show rows as blocks
      h(
        "table",
        { role: "table" },
        h("caption", { class: "unseen" }, caption),
        h(
          "thead",
          { role: "rowgroup" },
          h("tr", { role: "row" }, heads.map((head) => h("th", { role: "columnheader", scope: "col" }, head))),
        ),
        h(
          "tbody",
          { role: "rowgroup" },
          rows.map(({ key, cells, ...more }) =>
            h(
              "tr",
              { key, role: "row", ...more },
              cells.map((cell, index) =>
                index === 0
                  ? h("th", { role: "rowheader", scope: "row", "data-label": heads[0] }, cell)
                  : h("td", { role: "cell", "data-label": heads[index] }, cell),
              ),
            ),
          ),
        ),
      );

export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => isShown(value))
      .map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value))),
  );
}

const unsaid = [];
const SAID = 3;

/**
 * Tells those who do not see the page what has changed on it; what comes together is said together. Each time in a
 * paragraph of its own: text that is changed is read as a whole, what it was before included.
 */
export function say(text) {
  if (unsaid.push(text) > 1) return;
  setTimeout(() => {
    const said = document.getElementById("said");
    const words = document.createElement("p");
    words.textContent = unsaid.splice(0).join(" ");
    said.append(words);
    if (said.children.length > SAID) said.firstChild.remove();
  }, 100);
}

/** Tells of things that were in one state and are in another by now; of many at once only that they are many. */
export function sayChanges(before, now, nameOfMany) {
  const changed = [...now].filter(([key, one]) => before.has(key) && before.get(key).state !== one.state);
  if (changed.length > 3) say(`${changed.length} ${nameOfMany} have changed.`);
  else for (const [, one] of changed) say(`${one.name} is ${one.state}.`);
}

export function tell(text, { isError = false } = {}) {
  const notices = document.getElementById("notices");
  const notice = document.createElement("p");
  notice.className = isError ? "notice error" : "notice";
  const words = document.createElement("span");
  if (isError) words.setAttribute("role", "alert");
  else say(text);
  words.textContent = text;
  const before = document.activeElement;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "plain";
  close.textContent = "Dismiss";
  close.setAttribute("aria-label", `Dismiss: ${text}`);
  close.addEventListener("click", () => {
    notice.remove();
    giveFocus(before);
  });
  notice.append(words, " ", close);
  for (const one of [...notices.children]) if (one.textContent === notice.textContent) one.remove();
  notices.append(notice);
  while (notices.children.length > 3) notices.firstChild.remove();
  const fade = () => (notice.matches(":hover, :focus-within") ? setTimeout(fade, 1000) : notice.remove());
  if (!isError) setTimeout(fade, 6000);
}

/**
 * Asks before something that cannot be undone; the focus goes back to where it was. Each question has a dialog of its own:
 * a dialog tells that it was closed some time after it was, when another question may be open.
 */
export function ask(text, action) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "question-text");
  document.body.append(dialog);
  return new Promise((resolve) => {
    const end = (answer) => {
      dialog.close();
      dialog.remove();
      resolve(answer);
    };
    render(
      dialog,
      h("p", { id: "question-text" }, text),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", class: "danger", onclick: () => end(true) }, action),
        h("button", { type: "button", autofocus: true, onclick: () => end(false) }, "Not now"),
      ),
    );
    dialog.addEventListener("close", () => end(false)); // by Escape
    // what lies under a dialog is as if it were not there, and would be said anew when it is back
    document.getElementById("said").replaceChildren();
    dialog.showModal();
  });
}

export function copyable(label, text) {
  const copy = async (event) => {
    const shown = event.target.closest(".copyable").querySelector("code");
    try {
      await navigator.clipboard.writeText(text);
      tell("Copied.");
    } catch {
      getSelection().selectAllChildren(shown);
      tell("Press Ctrl+C to copy it.");
    }
  };
  return h(
    "div",
    { class: "copyable" },
    h("code", null, text),
    h("button", { type: "button", "aria-label": `Copy ${label}`, onclick: copy }, "Copy"),
  );
}
