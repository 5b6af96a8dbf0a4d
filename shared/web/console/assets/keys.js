import { get, remove, user } from "./api.js";
import { moment } from "./time.js";
import { ask, h, table } from "./ui.js";
import { View } from "./view.js";

export class KeysView extends View {
  title = "Keys";
  keys = [];

  start() {
    return this.load(async () => {
      this.keys = (await get("/v1/keys?limit=500", { signal: this.signal })).keys;
    });
  }

  async revoke(key) {
    const text = key.current ? "This is the key of this page: you will be logged out." : "Whatever uses it is refused.";
    if (!(await ask(`Revoke ${key.key_prefix}? ${text}`, "Revoke the key"))) return;
    const path = `/v1/keys/${key.key_prefix}`;
    await this.act("revoke", () => remove(path), { told: () => `${key.key_prefix} is revoked.` });
    if (user() !== null) await this.start();
  }

  render() {
    return [
      h("h1", { tabindex: "-1" }, "Your keys"),
      this.error && h("p", { class: "error", role: "alert" }, this.error),
      h("p", { class: "quiet" }, "Keys that are good now. The key of this page is renewed by itself while the page is open."),
      table(
        "Keys that are good now, newest first",
        ["Key", "Made", "Ends", "Last used", "Revoke"],
        this.keys.map((key) => ({
          key: key.key_prefix,
          cells: [
            h("span", null, h("code", null, key.key_prefix), key.current && " (this page)"),
            moment(key.created_at),
            moment(key.expires_at),
            moment(key.last_used) ?? "not yet",
            h(
              "button",
              { type: "button", class: "danger", "aria-label": `Revoke ${key.key_prefix}`, onclick: () => this.revoke(key) },
              "Revoke",
            ),
          ],
        })),
        this.isLoading ? "Loading …" : `There are none: ${user()?.username}'s are gone.`,
      ),
    ];
  }
}
