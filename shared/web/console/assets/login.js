import { beginSession, get, post, textOf } from "./api.js";
import { signQuestion } from "./sigv4.js";
import { field, h } from "./ui.js";
import { View } from "./view.js";

const NAMES = {
  aws_access_key_id: /AWS_?ACCESS_?KEY_?ID|AccessKeyId/i,
  aws_secret_access_key: /AWS_?SECRET_?ACCESS_?KEY|SecretAccessKey/i,
  aws_session_token: /AWS_?SESSION_?TOKEN|SessionToken/i,
};

/** Credentials as tools print them: lines of `export`, of a profile, or JSON. */
export function readCredentials(text) {
  const found = {};
  for (const [name, pattern] of Object.entries(NAMES)) {
    const value = text.match(new RegExp(`(?:${pattern.source})["']?\\s*[=:]\\s*["']?([^\\s"',;]+)`, "i"));
    if (value) [, found[name]] = value;
  }
  return found;
}

export async function logInByCode(code) {
  beginSession(await post("/v1/auth/console-login", { code }, { isPublic: true }));
}

export async function readIdentity() {
  const { is_operator } = await get("/v1/auth/identity");
  return is_operator;
}

export class LoginView extends View {
  title = "Log in";

  constructor(update, { reason, done }) {
    super(update, []);
    this.error = reason;
    this.done = done;
  }

  async logIn(event) {
    event.preventDefault();
    const form = event.target;
    const credentials = readCredentials(new FormData(form).get("credentials"));
    const missing = Object.keys(NAMES).filter((name) => !credentials[name]);
    if (missing.length > 0) {
      this.error = `There is no ${missing.join(", no ")} in this.`;
      this.update();
      return;
    }
    if (!isSecureContext) {
      this.error = "Credentials are taken only over https, or on this machine: `gpudev console` logs you in here.";
      this.update();
      return;
    }
    this.busy = true;
    this.error = null;
    this.update();
    try {
      const wanted = await get("/v1/auth/aws-signing", { isPublic: true });
      const signed = await signQuestion(credentials, wanted);
      beginSession(await post("/v1/auth/aws-signed-login", signed, { isPublic: true }));
      form.reset();
      await this.done();
    } catch (error) {
      this.error = textOf(error);
    } finally {
      this.busy = false;
      this.update();
    }
  }

  render() {
    const lines = "export AWS_ACCESS_KEY_ID=…\nexport AWS_SECRET_ACCESS_KEY=…\nexport AWS_SESSION_TOKEN=…";
    const area = {
      id: "credentials",
      name: "credentials",
      class: "secret",
      rows: "4",
      required: true,
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
      placeholder: lines,
    };
    return [
      h("h1", { tabindex: "-1" }, "Log in to GPU Dev"),
      this.error && h("p", { class: "error", role: "alert" }, this.error),
      h(
        "section",
        { "aria-labelledby": "by-command" },
        h("h2", { id: "by-command" }, "From the command line"),
        h("p", null, "If you are logged in there, this opens the console in your browser, logged in:"),
        h("pre", { class: "typed" }, h("code", null, "gpudev console")),
      ),
      h(
        "section",
        { "aria-labelledby": "by-aws" },
        h("h2", { id: "by-aws" }, "With AWS credentials"),
        h(
          "form",
          { onsubmit: (event) => this.logIn(event) },
          field(
            "Credentials of a session of your role",
            h("textarea", area),
            "As your credentials tool prints them: export lines, a profile, or JSON. The secret key does not leave this " +
              "page: it signs the question to AWS whose it is, and GPU Dev is sent the signature.",
          ),
          h("button", { class: "primary", disabled: this.busy }, this.busy ? "Logging in …" : "Log in"),
        ),
      ),
    ];
  }
}
