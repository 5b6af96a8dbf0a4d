"""A real browser on the console: what it shows, and what it complains about."""

import base64
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

CHROMIUM = os.environ.get("GPUDEV_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
"""None: there is none, and what needs it cannot run."""
_MILLISECONDS = 60_000
"""For whatever must come: far from what it takes on a machine that has other tests to run."""
expect.set_options(timeout=_MILLISECONDS)
WIDE, NARROW = 1280, 360
_HEIGHT = 900
_VIOLATIONS = """
  window.violations = [];
  document.addEventListener("securitypolicyviolation", (event) =>
    violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""
# what is cut off, outside of the page, on top of something else, or too pale to be read
_LAYOUT = """() => {
  const problems = [];
  const name = (e) => `${e.tagName.toLowerCase()}.${e.className} "${(e.textContent || e.id).trim().slice(0, 40)}"`;
  const root = document.scrollingElement;
  if (root.scrollWidth > innerWidth) problems.push(`the page is ${root.scrollWidth} wide, of ${innerWidth}`);
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const clipped = (e) => e.closest(".unseen, .skip, thead");
  const shown = [...document.querySelectorAll("body *")].filter((e) => seen(e) && !clipped(e));
  const open = document.querySelector("dialog[open]");
  const inReach = shown.filter((e) => !open || open.contains(e));
  for (const e of inReach) {
    const box = e.getBoundingClientRect();
    if (box.left < -0.5 || box.right > innerWidth + 0.5) problems.push(`out of the page: ${name(e)}`);
  }
  const controls = inReach.filter((e) => e.matches("a, button, input, select, textarea, summary"));
  const inline = (e) => e.matches("a:not(.button)") && getComputedStyle(e).display === "inline";
  for (const [place, one] of controls.entries()) {
    const a = one.getBoundingClientRect();
    if (!inline(one) && !one.matches("[type=radio], [type=checkbox], .plain") && a.height < 24)
      problems.push(`hard to hit: ${name(one)}`);
    for (const other of controls.slice(place + 1)) {
      if (one.contains(other) || other.contains(one) || one.closest("#notices") || other.closest("#notices")) continue;
      const b = other.getBoundingClientRect();
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1 && y > 1) problems.push(`on top of each other: ${name(one)} and ${name(other)}`);
    }
  }
  for (const e of inReach.filter((e) => e.matches("input, select, textarea"))) {
    if (!e.labels?.length && !e.getAttribute("aria-label")) problems.push(`without a label: ${name(e)}`);
  }
  for (const e of inReach.filter((e) => e.matches("a, button") && !e.textContent.trim() && !e.ariaLabel)) {
    problems.push(`without a name: ${e.outerHTML}`);
  }
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const part = (c) => ((c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a > 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  for (const e of inReach) {
    if (![...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (e.matches(":disabled, [aria-disabled=true]")) continue;
    const [one, other] = [luminance(parse(getComputedStyle(e).color)), luminance(ground(e))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) problems.push(`too pale (${ratio.toFixed(2)}): ${name(e)}`);
  }
  const heads = shown.filter((e) => e.matches("h1"));
  if (heads.length !== 1) problems.push(`${heads.length} headings of the page`);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids.filter((id, place) => ids.indexOf(id) !== place))) problems.push(`twice: #${id}`);
  return problems;
}"""
# what a screen reader would say by itself: text that comes into a live region, all of it where the region is one piece
# (https://www.w3.org/TR/wai-aria-1.2/#aria-live); a region that comes with its text is heard only if it is an alert
_SPOKEN = """
  window.spoken = [];
  const live = "[role=status], [role=alert], [role=log], [aria-live]";
  const isOff = (region) =>
    region.getAttribute("aria-live") === "off" || (document.querySelector(":modal") && !region.closest(":modal"));
  new MutationObserver((changes) => {
    const wholes = new Set();
    for (const { target, addedNodes, type } of changes) {
      for (const node of type === "characterData" ? [target] : addedNodes) {
        if (!node.isConnected) continue;
        if (node.nodeType === 1) for (const e of [node, ...node.querySelectorAll("[role=alert]")])
          if (e.matches("[role=alert]")) wholes.add(e);
        const region = node.parentElement?.closest(live);
        if (!region || isOff(region)) continue;
        if (region.matches("[role=status], [role=alert]")) wholes.add(region);
        else spoken.push(node.textContent);
      }
    }
    for (const region of wholes)
      if (region.textContent.trim() && !isOff(region)) spoken.push(region.textContent);
  }).observe(document, { subtree: true, childList: true, characterData: true });
"""
_CONTROLS = frozenset(
    {"button", "link", "textbox", "spinbutton", "checkbox", "radio", "combobox", "DisclosureTriangle"}
)
_READ_WHEN_FOCUSED = _CONTROLS | {"RootWebArea", "heading", "main", "log", "dialog", "option", "MenuListPopup"}
# the browser reads its own picture: mean brightness (0 to 255), and how many shades of green there are
_PICTURE = """async (picture) => {
  const bytes = Uint8Array.from(atob(picture), (c) => c.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const { data } = canvas.getImageData(0, 0, image.width, image.height);
  const shades = new Set();
  let sum = 0;
  for (let place = 1; place < data.length; place += 4) {
    shades.add(data[place]);
    sum += data[place];
  }
  return { width: image.width, brightness: sum / (data.length / 4), shades: shades.size };
}"""


@dataclass(frozen=True)
class Accessible:
    """One thing on the page, as it is told to a screen reader."""

    role: str
    """In Chromium's words."""
    name: str
    states: dict[str, Any] = field(default_factory=dict)


class Tab:
    """A page of the browser, whose complaints are kept."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.expected: list[str] = []
        """Parts of complaints that a test causes on purpose; never a mere number, which an address may hold as well."""
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("requestfailed", lambda request: self._failed(request.url))
        self._hosts: set[str] = set()
        page.on("request", lambda request: self._hosts.add(request.url.split("/")[2]))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def _failed(self, url: str) -> None:
        if not url.startswith(self.url):
            self.complaints.append(f"asked elsewhere: {url}")

    async def check(self) -> None:
        """Nothing was complained about, and nobody else was asked for anything."""
        violations = await self.page.evaluate("window.violations ?? []")
        left = [one for one in self.complaints if not any(part in one for part in self.expected)]
        assert (violations, left) == ([], []), (violations, left)
        assert self._hosts <= {self.url.split("/")[2]}

    async def open(self, path: str = "/console") -> None:
        """Go to a path of the ingress."""
        await self.page.goto(self.url + path)

    async def go(self, view: str) -> None:
        """Follow a link of the navigation."""
        link = self.page.get_by_role("navigation").get_by_role("link", name=view, exact=True)
        await link.click()
        await expect(link).to_have_attribute("aria-current", "page")

    async def look(self, *, width: int, dark: bool = False, keep: str | None = None) -> None:
        """Look at the page as it is now at a width: nothing overflows, overlaps, is out of view or cannot be read.

        Args:
            width: Of the window, in pixels.
            dark: As the system's setting says.
            keep: Name of the screenshot in the folder of GPUDEV_SCREENSHOTS, if there is one.
        """
        await self.page.emulate_media(color_scheme="dark" if dark else "light")
        await self.page.set_viewport_size({"width": width, "height": _HEIGHT})
        picture = await self.page.screenshot(full_page=True)
        if keep and (folder := os.environ.get("GPUDEV_SCREENSHOTS")):
            (Path(folder) / f"{keep}-{width}{'-dark' if dark else ''}.png").write_bytes(picture)
        problems = await self.page.evaluate(_LAYOUT)
        assert not problems, (width, dark, problems)
        seen = await self.page.evaluate(_PICTURE, base64.b64encode(picture).decode())
        brightness, shades = seen["brightness"], seen["shades"]
        assert seen["width"] == width
        assert (brightness < 90) if dark else (brightness > 150), brightness
        assert shades > 20, "there is text on it"

    async def assess(self) -> None:
        """What axe-core finds wrong for those who use a screen reader, a keyboard or little sight: nothing."""
        found = await Axe().run(self.page, options={"resultTypes": ["violations"]})
        violations = [
            (one["id"], one["help"], [(node["target"], node["failureSummary"]) for node in one["nodes"]])
            for one in found.response["violations"]
        ]
        assert not violations, violations

    async def accessible(self) -> list[Accessible]:
        """The page as assistive technology is given it by the browser, in the order of reading."""
        session = await self.page.context.new_cdp_session(self.page)
        nodes = (await session.send("Accessibility.getFullAXTree"))["nodes"]
        await session.detach()
        by_id = {node["nodeId"]: node for node in nodes}

        def read(node: dict[str, Any]) -> Iterator[Accessible]:
            if not node["ignored"]:
                yield _accessible(node)
            for child in node.get("childIds", []):
                if child in by_id:
                    yield from read(by_id[child])

        return list(read(nodes[0]))

    async def read_aloud(self) -> None:
        """Whoever has the page read to them: knows where they are, and what each control is and is for."""
        read = await self.accessible()
        problems = [f"nobody knows what this is for: {one}" for one in read if one.role in _CONTROLS and not one.name]
        focusable = [one for one in read if one.states.get("focusable")]
        problems += [f"nobody knows what this is: {one}" for one in focusable if one.role not in _READ_WHEN_FOCUSED]
        named = Counter((one.role, one.name) for one in read if one.role in _CONTROLS - {"link"})
        problems += [f"{count} of {one} mean different things" for one, count in named.items() if count > 1]
        problems += [f"nameless: {one}" for one in read if one.role in {"image", "table", "region"} and not one.name]
        levels = [one.states["level"] for one in read if one.role == "heading"]
        steps = zip([0, *levels], levels, strict=False)
        problems += [f"headings go from {before} to {after}" for before, after in steps if after > before + 1]
        marks = [one.role for one in read if one.role in {"banner", "main"}]
        if marks != ["banner", "main"] or levels.count(1) != 1:
            problems.append(f"the page is {marks} with headings {levels}")
        assert not problems, problems

    async def spoken(self) -> list[str]:
        """What a screen reader has said by itself since it was asked last."""
        said: list[str] = await self.page.evaluate("spoken.splice(0)")
        return said

    async def hears(self, wanted: str) -> list[str]:
        """Wait until something with these words is said; everything that was said until then."""
        await self.page.wait_for_function("(wanted) => spoken.some((text) => text.includes(wanted))", arg=wanted)
        return await self.spoken()


def _accessible(node: dict[str, Any]) -> Accessible:
    states = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
    return Accessible(node["role"]["value"], " ".join(node.get("name", {}).get("value", "").split()), states)


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """Chromium of this machine, headless."""
    async with async_playwright() as playwright:
        # as root, and in containers, it cannot make its sandbox
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def tab_of(browser: Browser, url: str, **options: Any) -> AsyncIterator[Tab]:
    """A tab with storage of its own; at the end nothing may have been complained about."""
    context = await browser.new_context(
        viewport={"width": WIDE, "height": _HEIGHT}, locale="en-GB", timezone_id="Europe/Berlin", **options
    )
    await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
    await context.add_init_script(_VIOLATIONS)
    await context.add_init_script(_SPOKEN)
    context.set_default_timeout(_MILLISECONDS)
    tab = Tab(await context.new_page(), url)
    try:
        yield tab
        await tab.check()
    finally:
        await context.close()
