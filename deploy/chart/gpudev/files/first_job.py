"""Log in, run a job of one GPU to its end, and say what happened: `helm test` runs this in the image of auth."""

import json
import os
import sys
import time
import urllib.error
import urllib.request

import boto3

AUTH, JOBS, CAPACITY = (os.environ[f"{name}_URL"] for name in ("AUTH", "JOBS", "CAPACITY"))
DEADLINE = time.monotonic() + float(os.environ["SECONDS"])
ENDED = {"completed", "failed", "cancelled", "expired"}
WORD = "a job of one GPU has run"
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy is for what is outside of the cluster, such as AWS."""


def call(url: str, key: str | None = None, body: object = None) -> str:
    """What the API answers; what is not there yet is asked for again until the time is up."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    while True:
        try:
            with DIRECTLY.open(urllib.request.Request(url, data, headers), timeout=40) as answer:
                return str(answer.read(), errors="replace")
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code not in {429, 502, 503, 504} or time.monotonic() > DEADLINE:
                sys.exit(f"{url} answered {error.code}: {text}")
        except OSError as error:
            if time.monotonic() > DEADLINE:
                sys.exit(f"{url} does not answer: {error}")
        time.sleep(1)


def credentials() -> dict[str, str | None]:
    """Of the Secret, else of the pod's own identity."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return {name.lower(): os.environ[name] for name in names if name in os.environ}
    found = boto3.Session().get_credentials()
    if found is None:
        sys.exit("No AWS credentials: set test.secret, or give the test's service account an identity")
    key = found.get_frozen_credentials()
    return {
        "aws_access_key_id": key.access_key,
        "aws_secret_access_key": key.secret_key,
        "aws_session_token": key.token,
    }


def free_type(key: str) -> str:
    """An instance type that has a free GPU."""
    wanted = os.environ.get("INSTANCE_TYPE")
    if wanted:
        return wanted
    known: dict[str, str] = json.loads(os.environ["INSTANCE_TYPES"])
    while True:
        answer = json.loads(call(f"{CAPACITY}/v1/gpu/availability", key))
        free = {name for name, gpus in answer["availability"].items() if gpus["available"] > 0}
        for name, gpu_type in known.items():
            if gpu_type in free:
                return name
        if time.monotonic() > DEADLINE:
            sys.exit(f"No GPU is free: {answer}")
        time.sleep(2)


def main() -> None:
    """Log in, submit, wait, and look at what was printed."""
    key = json.loads(call(f"{AUTH}/v1/auth/aws-login", body=credentials()))["api_key"]
    job = {
        "image": os.environ["IMAGE"],
        "instance_type": free_type(key),
        "gpu_count": 1,
        "duration_hours": 1,
        "command": f"echo {WORD}",
    }
    job_id = json.loads(call(f"{JOBS}/v1/jobs/submit", key, job))["job_id"]
    print(f"Submitted {job_id} on {job['instance_type']}", flush=True)
    before = None
    while True:
        now = json.loads(call(f"{JOBS}/v1/jobs/{job_id}", key))
        seen = (now["status"], now.get("status_reason"))
        if seen != before:
            print(*(part for part in seen if part), sep=": ", flush=True)
            before = seen
        if now["status"] in ENDED:
            break
        if time.monotonic() > DEADLINE:
            call(f"{JOBS}/v1/jobs/{job_id}/cancel", key, {})
            sys.exit(f"The job has not ended: {now}")
        time.sleep(1)
    log = call(f"{JOBS}/v1/jobs/{job_id}/logs", key)
    if now["status"] != "completed" or WORD not in log:
        sys.exit(f"The job did not do its work: {now}, its log: {log!r}")
    print("The job ran and ended.")


main()
