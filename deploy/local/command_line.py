"""`bin/gpudev` in the state folder: the command line, for this stack."""

import shlex
import sys
from pathlib import Path

from deploy.local.state import StateDirectory

_SOURCE = Path(__file__).parents[2] / "client" / "src"
_TEXT = """#!/bin/sh
# The command line of the stack of this folder, with a key of its own. Without AWS credentials: as its demo user.
export GPUDEV_CONFIG_DIR="${{GPUDEV_CONFIG_DIR:-{config}}}"
export GPUDEV_URL="${{GPUDEV_URL:-{url}}}"
export GPUDEV_COMMAND={command}
export GPUDEV_SSH_CONFIG="${{GPUDEV_SSH_CONFIG:-{ssh_config}}}"
[ -n "$AWS_ACCESS_KEY_ID" ] || . {env}
PYTHONPATH={source}${{PYTHONPATH:+:$PYTHONPATH}} exec {python} -m gpudev "$@"
"""


def write_command(state: StateDirectory, url: str) -> None:
    """Write the program, for whoever may read the env file."""
    text = _TEXT.format(
        config=state.root / "gpudev",
        url=url,
        command=shlex.quote(str(state.command)),
        ssh_config=shlex.quote(str(state.ssh_config)),
        env=shlex.quote(str(state.env)),
        source=shlex.quote(str(_SOURCE)),
        python=shlex.quote(sys.executable),
    )
    state.command.parent.mkdir(exist_ok=True)
    state.command.write_text(text)
    state.command.chmod(0o700)
