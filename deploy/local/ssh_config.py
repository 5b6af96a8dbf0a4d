"""Makes a pasted `ssh_command` open its job: with the demo users' keys, and no question about hosts."""

import shlex
from pathlib import Path

from deploy.local.state import StateDirectory, write_private

_HEAD = """\
# Made by the stack: jobs of the local stack, with the keys of the demo users.
Host *
  # Every job has a host key of its own, on a port that was another job's.
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  IdentitiesOnly yes
"""


def write_ssh_config(state: StateDirectory) -> None:
    """Write the configuration for the users whose private keys are there now."""
    keys = sorted(page.with_suffix("") for page in state.github.glob("*.keys"))
    lines = [f'  IdentityFile "{_escaped(key)}"\n' for key in keys if key.exists()]
    write_private(state.ssh_config, _HEAD + "".join(lines))


def ssh_command(state: StateDirectory) -> str:
    """Template of the command, with {host} and {port}."""
    config = shlex.quote(str(state.ssh_config)).replace("{", "{{").replace("}", "}}")
    return f"ssh -F {config} -p {{port}} dev@{{host}}"


def _escaped(path: Path) -> str:
    """% begins a token of ssh's."""
    return str(path).replace("%", "%%")
