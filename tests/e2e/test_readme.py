"""The README's first job, pasted as it is written."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.support.load import shell
from tests.support.notebook import Notebook
from tests.support.ssh import paste
from tests.support.stack import LocalStack, until, users

README = Path(__file__).parents[2] / "README.md"


def blocks() -> list[str]:
    """The shell's parts of the section."""
    section = README.read_text().split("\n## A first job\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


@pytest.mark.timeout(180)
async def test_the_first_job_of_the_readme_opens_by_ssh_and_in_a_browser(stack: LocalStack) -> None:
    first, then = blocks()
    assert ". .local/env" in first
    first = first.replace(". .local/env", f". {stack.state.env}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "API_"))}
    output = await asyncio.to_thread(shell, first + '\necho "$API_URL" "$API_KEY" "$JOB"', environment=environment)
    url, key, job_id = output.splitlines()[-1].split()
    stack.secrets.add(key)
    async with users(stack, "demo") as (demo,):
        job = await demo.wait(job_id, "active")
        told = await paste(job["ssh_command"], "pwd")
        assert (told.code, told.output.strip().endswith("/home/dev")) == (0, True)
        enable, show, cancel = then.strip().splitlines()
        given = {**environment, "API_URL": url, "API_KEY": key, "JOB": job_id}
        await asyncio.to_thread(shell, enable, environment=given)

        async def has_jupyter() -> bool:
            return bool((await demo.job(job_id))["jupyter_enabled"])

        # the answer says so at once, unless the machine takes longer than it is held
        await until(has_jupyter, "JupyterLab", seconds=60)
        shown = await asyncio.to_thread(shell, show, environment=given)
        await until(Notebook(shown.splitlines()[-1]).answers, "the ingress knows the job's host")
        await asyncio.to_thread(shell, cancel, environment=given)
        await demo.wait(job_id, "cancelled")
