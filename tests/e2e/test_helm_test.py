"""What `helm test` runs, on a stack: a job of one GPU to its end."""

import asyncio
import json
import os
import subprocess
import sys

from deploy.chart import generate
from shared.contracts.catalogue import CATALOGUE
from tests.support.stack import LocalStack

SCRIPT = generate.CHART / "files" / "first_job.py"


async def run(stack: LocalStack, **variables: str) -> subprocess.CompletedProcess[str]:
    known = json.dumps({instance.name: instance.gpu_type for instance in CATALOGUE})
    credentials = {name: value for name, value in stack.exports().items() if name.startswith("AWS_")}
    urls = dict.fromkeys(("AUTH_URL", "JOBS_URL", "CAPACITY_URL"), stack.url)
    settings = {"IMAGE": "debian:12", "INSTANCE_TYPE": "", "INSTANCE_TYPES": known, "SECONDS": "60"}
    environment = {"PATH": os.environ["PATH"], **credentials, **urls, **settings, **variables}
    return await asyncio.to_thread(
        subprocess.run, [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False
    )


async def test_a_job_of_one_gpu_runs_to_its_end(stack: LocalStack) -> None:
    # services are asked without the proxy that their environment may name
    done = await run(stack, HTTP_PROXY="http://127.0.0.1:1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed" in done.stdout
    assert stack.exports()["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr


async def test_who_may_not_log_in_is_told_why(stack: LocalStack) -> None:
    done = await run(stack, AWS_SECRET_ACCESS_KEY="wrong" * 8)
    assert done.returncode == 1
    assert "aws-login answered 401" in done.stderr
    assert "wrongwrong" not in done.stdout + done.stderr


async def test_what_does_not_answer_is_told(stack: LocalStack) -> None:
    done = await run(stack, AUTH_URL="http://127.0.0.1:1", SECONDS="0")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
