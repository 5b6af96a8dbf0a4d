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
# What `gpudev submit` and `gpudev run` take where nothing else is said; fields of the API.
_DEFAULTS = """\
image: debian:12
instance_type: p5.48xlarge
github_user: demo
"""


def write_command(state: StateDirectory, url: str) -> None:
    """Write the program, for whoever may read the env file."""
    config = state.root / "gpudev"
    text = _TEXT.format(
        config=config,
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
    defaults = config / "defaults.yaml"
    if not defaults.exists():  # whoever changes it keeps theirs
        config.mkdir(mode=0o700, exist_ok=True)
        defaults.write_text(_DEFAULTS)
