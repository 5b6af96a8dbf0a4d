"""Schemathesis through the ingress: what the document promises is what is answered, whatever is sent."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stack import ApiUser, LocalStack, running_stack, users

pytestmark = pytest.mark.timeout(600)

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance"
)
SEED = "20260120"


def schemathesis(stack: LocalStack, user: ApiUser, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{stack.url}/openapi.json",
        "--header",
        f"Authorization: Bearer {user.key}",
        "--checks",
        CHECKS,
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "12",
        "--seed",
        SEED,
        "--no-color",
        "--suppress-health-check",
        "all",
        *options,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=560, check=False)


async def cancel_all(user: ApiUser) -> None:
    assert (await user.client.get("/v1/jobs")).status_code == 200, "the key of the run is still good"
    while jobs := (await user.client.get("/v1/jobs?status=pending,queued,preparing,active&limit=100")).json()["jobs"]:
        for job in jobs:
            await user.client.post(f"/v1/jobs/{job['job_id']}/cancel")
        for job in jobs:
            await user.wait(job["job_id"])


@pytest.mark.long
async def test_no_input_gets_an_undocumented_answer(tmp_path: Path) -> None:
    # a stack of its own: after so many bad log-ins nobody of this address may log in for a minute
    with running_stack(GPUDEV_BODY_SECONDS="5", GPUDEV_READ_SECONDS="8") as stack:
        async with users(stack, "fuzzer") as (user,):
            await run_without_findings(stack, user, tmp_path)


async def run_without_findings(stack: LocalStack, user: ApiUser, folder: Path) -> None:
    # the key routes could end the very key that the run uses; health is 503 by design while something is away;
    # followed events, and the followed logs of a job that runs, do not end
    options = ("--exclude-path-regex", "^(/health|/v1/keys/|.*/(events|logs)$)")
    done = await asyncio.to_thread(schemathesis, stack, user, folder, *options)
    await cancel_all(user)
    assert done.returncode == 0, done.stdout[-6000:]


async def test_logs_answer_as_documented(stack: LocalStack, tmp_path: Path) -> None:
    async with users(stack, "log-fuzzer") as (user,):
        await user.wait(await user.submit(gpu_count=1, command="echo it has ended"), "completed")
        done = await asyncio.to_thread(schemathesis, stack, user, tmp_path, "--include-path-regex", "/logs$")
    assert done.returncode == 0, done.stdout[-6000:]


async def test_the_key_routes_answer_as_documented(stack: LocalStack, tmp_path: Path) -> None:
    async with users(stack, "rotator") as (user,):
        done = await asyncio.to_thread(schemathesis, stack, user, tmp_path, "--include-path-regex", "^/v1/keys/")
    assert done.returncode == 0, done.stdout[-6000:]
