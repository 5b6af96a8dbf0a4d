// The API, as this page calls it: with the session's key, which is nowhere but here and in sessionStorage.

const STORED = "gpudev.session";
const RENEWED_SHARE = 0.25;

export class ApiError extends Error {
  constructor(status, text, problems = []) {
    super(text);
    this.status = status;
    this.problems = problems;
  }
}

let session = JSON.parse(sessionStorage.getItem(STORED) ?? "null");
let ended = () => {};
let renewal;

export const user = () => session;
export const onSessionEnd = (listener) => (ended = listener);

export function beginSession(answer, more = {}) {
  session = { ...session, ...answer, ...more, obtained_at: new Date().toISOString() };
  sessionStorage.setItem(STORED, JSON.stringify(session));
  planRenewal();
}

export function endSession(reason) {
  session = null;
  sessionStorage.removeItem(STORED);
  clearTimeout(renewal);
  ended(reason);
}

/** A key lives for hours, and a page for days: before the last quarter of its life it is exchanged for a new one. */
export function planRenewal() {
  clearTimeout(renewal);
  if (session === null || session.final) return;
  const [begun, end] = [new Date(session.obtained_at), new Date(session.expires_at)];
  const due = end - RENEWED_SHARE * (end - begun) - Date.now();
  renewal = setTimeout(renew, Math.min(Math.max(due, 1000), 2 ** 31 - 1));
}

async function renew() {
  try {
    const before = new Date(session.expires_at);
    const answer = await call("POST", "/v1/keys/rotate");
    // the session that began with the log-in ends with this key
    beginSession(answer, { final: new Date(answer.expires_at) - before < 60_000 });
  } catch (error) {
    if (error.status !== 401) renewal = setTimeout(renew, 30_000);
  }
}

export const random = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** The answer's JSON; what changes something is sent again with the same key, so that it has its effect once. */
export async function call(method, path, { body, headers = {}, signal, isPublic = false, unhealthy = false } = {}) {
  const changes = method !== "GET";
  const sent = { ...headers, ...(changes && { "Idempotency-Key": random() }) };
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await open(method, path, { body, headers: sent, signal, isPublic, unhealthy });
      return answer.status === 304 ? null : await answer.json();
    } catch (error) {
      const mayPass = error.name === "TypeError" || error.status === 503 || error.status === 502;
      if (!mayPass || attempt === 2 || signal?.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
    }
  }
}

/** The answer itself, for what is streamed; raises for what is no success. */
export async function open(method, path, { body, headers = {}, signal, isPublic = false, unhealthy = false } = {}) {
  const given = { ...headers };
  if (!isPublic) {
    if (session === null) throw new ApiError(401, "You are not logged in");
    given.Authorization = `Bearer ${session.api_key}`;
  }
  if (body !== undefined) given["Content-Type"] = "application/json";
  const options = { method, headers: given, signal, cache: "no-store", credentials: "omit", redirect: "error" };
  const answer = await fetch(path, body === undefined ? options : { ...options, body: JSON.stringify(body) });
  // health that is bad is an answer as well
  if (answer.ok || answer.status === 304 || (unhealthy && answer.status === 503)) return answer;
  const error = await errorOf(answer);
  if (answer.status === 401 && !isPublic) endSession("Your session has ended: log in again.");
  throw error;
}

async function errorOf(answer) {
  let detail;
  try {
    ({ detail } = await answer.json());
  } catch {
    detail = undefined;
  }
  if (Array.isArray(detail)) {
    const texts = detail.map((one) => `${one.loc.slice(1).join(".") || one.loc.join(".")}: ${one.msg}`);
    return new ApiError(answer.status, texts.join("; "), detail);
  }
  return new ApiError(answer.status, detail ?? `The service answered ${answer.status}`);
}

export const get = (path, options) => call("GET", path, options);
export const post = (path, body, options) => call("POST", path, { body, ...options });
export const remove = (path) => call("DELETE", path);
export const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined));

/** What to tell of an error. */
export function textOf(error) {
  if (error instanceof ApiError) return error.message;
  return error.name === "TypeError" ? "The service cannot be reached" : String(error.message ?? error);
}

/** What a job is as it changes: each answer is held by the service until there is something new. */
export async function followJob(jobId, signal, tell) {
  let tag;
  let pause = 1000;
  while (!signal.aborted) {
    try {
      const headers = tag ? { "If-None-Match": tag, Prefer: "wait=30" } : {};
      const answer = await open("GET", `/v1/jobs/${encodeURIComponent(jobId)}`, { headers, signal });
      if (answer.status !== 304) {
        tag = answer.headers.get("ETag");
        tell(await answer.json());
      }
      pause = 1000;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status !== undefined && error.status < 500 && error.status !== 429) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(pause * 2, 30_000);
    }
  }
}
