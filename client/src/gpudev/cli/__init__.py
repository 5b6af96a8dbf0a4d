"""The command `gpudev`."""

import os
import sys
from collections.abc import Callable

import typer

from gpudev.cli import account, disks, jobs, mcp, running, ssh, submitting, watching
from gpudev.cli.ending import CommandError, ExitCode, ending_of
from gpudev.cli.output import tell
from gpudev.errors import GpuDevError

_EPILOG = (
    "Exit codes: 0 done, 1 other error, 2 wrong input, 3 not logged in, 4 not allowed, 5 not found, 6 the state does "
    "not allow it, 7 not reachable or busy, 8 what was waited for failed, 130 interrupted."
)
app = typer.Typer(
    help="Time-boxed jobs on shared GPUs.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "login": account.login,
    "logout": account.logout,
    "whoami": account.whoami,
    "console": account.console,
    "submit": submitting.submit,
    "list": jobs.list_jobs,
    "show": jobs.show,
    "explain": jobs.explain,
    "logs": jobs.logs,
    "history": jobs.history,
    "watch": watching.watch,
    "extend": jobs.extend,
    "cancel": jobs.cancel,
    "avail": account.avail,
    "status": account.status,
    "usage": account.usage,
    "audit": account.audit,
    "mcp": mcp.mcp,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)
app.command("ssh", cls=ssh.SshCommand, context_settings=ssh.SSH_ARGUMENTS)(ssh.ssh)
app.command("run", context_settings=running.RUN_ARGUMENTS)(running.run)
app.command("cp")(ssh.copy)
app.command("forward")(ssh.forward)
app.command("ssh-config")(ssh.ssh_config)
app.command("open")(ssh.open_job)
app.command("proxy", hidden=True)(ssh.proxy)
app.command("host-keys", hidden=True)(ssh.host_keys)
app.add_typer(jobs.users, name="users")
app.add_typer(jobs.jupyter, name="jupyter")
app.add_typer(disks.disk, name="disk")
app.add_typer(account.keys, name="keys")


def main() -> None:
    """Run the command line; ends the process with one of the exit codes."""
    try:
        app(prog_name="gpudev")
    except CommandError as error:
        _end(error)
    except GpuDevError as error:
        _end(ending_of(error))
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)


def _end(error: CommandError) -> None:
    if error.text:
        tell(f"gpudev: {error.text}")
    if error.step:
        tell(f"  {error.step}")
    sys.exit(error.code)
