// AWS Signature Version 4 of one question: whose are these credentials? The secret key does not leave this function.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

const encode = (text) => new TextEncoder().encode(text);
const hex = (bytes) => [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const hash = async (text) => hex(await crypto.subtle.digest("SHA-256", encode(text)));

async function hmac(key, text) {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const imported = await crypto.subtle.importKey("raw", key, algorithm, false, ["sign"]);
  return crypto.subtle.sign("HMAC", imported, encode(text));
}

/** What `POST /v1/auth/aws-signed-login` takes; `wanted` is the answer of `GET /v1/auth/aws-signing`. */
export async function signQuestion(credentials, wanted) {
  const signedAt = `${new Date(wanted.time).toISOString().replace(/[-:]/g, "").slice(0, 15)}Z`;
  const headers = {
    host: wanted.host,
    "x-amz-date": signedAt,
    "x-amz-security-token": credentials.aws_session_token,
    "x-gpudev-login": wanted.x_gpudev_login,
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
  const request = ["POST", "/", "", lines.join(""), Object.keys(headers).join(";"), await hash(wanted.body)].join("\n");
  const scope = [signedAt.slice(0, 8), wanted.region, wanted.service, "aws4_request"];
  let key = encode(`AWS4${credentials.aws_secret_access_key}`);
  for (const part of scope) key = await hmac(key, part);
  const text = ["AWS4-HMAC-SHA256", signedAt, scope.join("/"), await hash(request)].join("\n");
  return {
    aws_access_key_id: credentials.aws_access_key_id,
    aws_session_token: credentials.aws_session_token,
    signed_at: signedAt,
    signature: hex(await hmac(key, text)),
  };
}
