"""What the ways into a job find there: its command, SSH, exec, and Jupyter's terminals and notebooks."""

import asyncio
from typing import Any

from kubernetes import stream

from tests.support.notebook import Notebook
from tests.support.ssh import paste, type_in
from tests.support.stack import ApiUser, LocalStack, until

NAMESPACE = "gpudev"
TELL = "echo; env; echo here=$(pwd -P)"
"""Prints the environment, and where it is told."""
LOG = '"$GPUDEV_ROOT/gpudev/run/command.log"'
"""Where sessions see what the command prints. Only the local stack has a folder above its pods' files."""
_OWN = {"SHLVL", "_", "OLDPWD", "PWD", "TERM", "SHELL", "MAIL", "LANG", "COLUMNS", "LINES", "PS1", "PYXTERM_DIMENSIONS"}
"""What a shell or a terminal makes for itself."""
_OWN_PREFIXES = ("SSH_", "JUPYTER_", "JPY_", "LC_")
_KERNELS = {
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLORTERM",
    "FORCE_COLOR",
    "GIT_PAGER",
    "MPLBACKEND",
    "PAGER",
    "PYDEVD_USE_FRAME_EVAL",
}
"""What notebooks have besides, of ipykernel."""


def variables(told: str) -> dict[str, str]:
    """What TELL has printed, less what each has of its own."""
    pairs = dict(line.partition("=")[::2] for line in told.splitlines() if "=" in line)
    return {name: value for name, value in pairs.items() if name not in _OWN and not name.startswith(_OWN_PREFIXES)}


def differences(found: dict[str, dict[str, str]]) -> dict[str, set[tuple[str, str]]]:
    """Of each way in, what is there and not in the command's environment, or the other way about."""
    command = found["command"].items()
    return {way: wrong for way, there in found.items() if (wrong := set(there.items() ^ command))}


async def environments(stack: LocalStack, user: ApiUser, job_id: str) -> dict[str, dict[str, str]]:
    """The variables of an active job, whose command is TELL before it waits, by the way they were asked for.

    `here` is one of them: the working directory.
    """
    job = await user.job(job_id)

    async def told() -> Any:
        log = (await paste(job["ssh_command"], f"cat {LOG}")).output
        return "here=" in log and log

    command = await until(told, "the command's environment")
    page = await _jupyter(user, job_id)
    code = "import os; print(*(f'{n}={v}' for n, v in os.environ.items()), 'here=' + os.getcwd(), sep='\\n')"
    kernel = variables(await page.run_cell(code))
    return {
        "command": variables(command),
        "ssh": variables((await paste(job["ssh_command"], TELL)).output),
        "shell": variables(await type_in(job["ssh_command"], TELL)),
        "exec": variables(await asyncio.to_thread(_exec, stack, job["pod_name"])),
        "terminal": variables(await page.run_in_terminal(TELL)),
        "notebook": {name: value for name, value in kernel.items() if name not in _KERNELS},
    }


def _exec(stack: LocalStack, pod_name: str) -> str:
    api = stack.cluster_api()
    options = {"stdin": False, "stdout": True, "stderr": True, "tty": False, "container": "main"}
    try:
        channel = stream.stream(
            api.connect_get_namespaced_pod_exec,
            pod_name,
            NAMESPACE,
            command=["/bin/sh", "-c", TELL],
            _preload_content=False,
            **options,
        )
        channel.run_forever(timeout=60)
        channel.sock.shutdown()
        return str(channel.read_stdout())
    finally:
        api.api_client.close()


async def _jupyter(user: ApiUser, job_id: str) -> Notebook:
    await user.client.post(f"/v1/jobs/{job_id}/jupyter/enable", headers={"Prefer": "wait=30"})

    async def enabled() -> Any:
        job = await user.job(job_id)
        assert not job["jupyter_error"], job
        return job["jupyter_enabled"] and job["jupyter_url"]

    notebook = Notebook(await until(enabled, "Jupyter", seconds=150))
    await until(notebook.answers, "its address leads to it")
    return notebook
