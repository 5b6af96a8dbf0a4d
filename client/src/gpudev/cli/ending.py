"""How a command ends: its exit codes, and what it says of an error."""

from enum import IntEnum

from gpudev import errors


class ExitCode(IntEnum):
    DONE = 0
    FAILED = 1
    """An error that no other code stands for."""
    WRONG = 2
    """The command line, or what was sent, is wrong."""
    NOT_LOGGED_IN = 3
    FORBIDDEN = 4
    NOT_FOUND = 5
    STATE = 6
    """The current state does not allow it."""
    UNREACHABLE = 7
    """GPU Dev could not be reached, is down, or has too many requests: try again later."""
    REFUSED = 8
    """The job or request that was waited for failed."""
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command.

    Args:
        text: What is wrong.
        code: Exit code; one of ours, or of a command that ran for us.
        step: What to do next.
    """

    def __init__(self, text: str, code: int = ExitCode.WRONG, step: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.step = step


_LATER = "Try again in a while; `gpudev status` shows when it is back."
_TABLE: tuple[tuple[type[errors.GpuDevError], ExitCode, str | None], ...] = (
    (errors.InvalidRequest, ExitCode.WRONG, "`gpudev COMMAND --help` shows what may be given."),
    (errors.Unauthenticated, ExitCode.NOT_LOGGED_IN, "Log in: `gpudev login`."),
    (errors.Forbidden, ExitCode.FORBIDDEN, "Ask the operators, or log in as somebody who may: `gpudev login`."),
    (errors.NotFound, ExitCode.NOT_FOUND, "`gpudev list` and `gpudev disk list` show what there is."),
    (errors.Conflict, ExitCode.STATE, "`gpudev show` and `gpudev disk show` tell the state."),
    (errors.Gone, ExitCode.STATE, "`gpudev disk restore NAME` brings it back."),
    (errors.IdempotencyMismatch, ExitCode.WRONG, "Give another --idempotency-key."),
    (errors.RateLimited, ExitCode.UNREACHABLE, _LATER),
    (errors.Unavailable, ExitCode.UNREACHABLE, _LATER),
    (errors.ConnectionFailed, ExitCode.UNREACHABLE, "Check the network; `gpudev login --url URL` changes the address."),
)


def ending_of(error: errors.GpuDevError) -> CommandError:
    """What a command says of an error of the API."""
    text = "\n".join(map(str, error.problems)) or error.detail
    if isinstance(error, errors.RateLimited) and error.retry_after:
        return CommandError(text, ExitCode.UNREACHABLE, f"Try again in {error.retry_after:.0f} s.")
    for kind, code, step in _TABLE:
        if isinstance(error, kind):
            return CommandError(text, code, step)
    named = f" and name the request {error.request_id}" if error.request_id else ""
    return CommandError(text, ExitCode.FAILED, f"Tell the operators{named}.")
