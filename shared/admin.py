"""What operators do by hand: `gpudev-admin SERVICE COMMAND`.

It runs in a replica of the service, with that replica's settings and under the service's own database role, and calls
the service's own operations. Events that it records are published by the running service.
"""

import argparse
import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from typing import Any
from uuid import UUID

from shared.audit import Act, begin_act
from shared.database import Database
from shared.errors import ErrorKind, GpuDevError
from shared.logs import mask_text
from shared.messaging import Delivery
from shared.messaging.dead_letters import DeadLetter, list_dead_letters, redeliver
from shared.routes import SERVICES
from shared.settings import SettingsError

_WRONG_USE = 2


class CommandFailed(GpuDevError):
    """A command did not do all that it was to do; its text says what it did."""

    kind = ErrorKind.CONFLICT


@dataclass(frozen=True, kw_only=True)
class Command:
    """One thing to do: parses its arguments, calls one operation, says what came of it."""

    name: str
    summary: str
    run: Callable[[argparse.Namespace], Awaitable[str]]
    """Gives the text to print; raises a GpuDevError for what the operator is to know."""
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """As `ArgumentParser.add_argument` takes them, by name."""


Administration = Callable[[], AbstractAsyncContextManager[Sequence[Command]]]
"""`services.<service>.app.administration`: the commands of a service, connected for the length of the block."""


def main() -> None:
    """Entry of `gpudev-admin`."""
    sys.exit(asyncio.run(administer(sys.argv[1:])))


async def administer(arguments: Sequence[str]) -> int:
    """Run one command and print what came of it; the exit code: 0, 1 when it failed, 2 when it was called wrongly."""
    installed = [service for service in SERVICES if find_spec(f"services.{service}")]
    parser = argparse.ArgumentParser(prog="gpudev-admin", description="What operators of GPU Dev do by hand.")
    parser.add_argument("service", choices=installed)
    given, rest = parser.parse_known_args(arguments[:1] or ["--help"])
    administration: Administration = importlib.import_module(f"services.{given.service}.app").administration
    try:
        async with administration() as commands:
            chosen, options = _parse(given.service, commands, [*rest, *arguments[1:]])
            begin_act(Act(action=chosen.name.replace("-", "_")))
            sys.stdout.write(f"{await chosen.run(options)}\n")
    except SettingsError as error:
        sys.stderr.write(f"{error}\nRun it in a replica of the service, which has these settings.\n")
        return _WRONG_USE
    except GpuDevError as error:
        sys.stderr.write(f"{error.text}\n")
        return 1
    return 0


def _parse(service: str, commands: Sequence[Command], arguments: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog=f"gpudev-admin {service}")
    choices = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        of_command = choices.add_parser(command.name, help=command.summary, description=command.summary)
        for name, options in command.arguments.items():
            of_command.add_argument(name, **options)
    given = parser.parse_args(arguments)
    return next(command for command in commands if command.name == given.command), given


def dead_letter_commands(database: Database, delivery: Delivery, clock: Callable[[], datetime]) -> Sequence[Command]:
    """Commands of every service that listens to events, for those that it could not handle."""

    async def show(_: argparse.Namespace) -> str:
        letters = await list_dead_letters(database)
        return "\n".join(_line_of(letter) for letter in letters) or _NO_DEAD_LETTERS

    async def deliver(given: argparse.Namespace) -> str:
        chosen = given.event_ids or [letter.event_id for letter in await list_dead_letters(database)]
        lines, failed = [], False
        for event_id in chosen:
            try:
                outcome = await redeliver(database, delivery, event_id=event_id, now=clock())
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, the other events are tried too
                outcome, failed = mask_text(f"failed: {type(error).__name__}: {error}"), True
            lines.append(f"{event_id}  {outcome}")
        text = "\n".join(lines) or _NO_DEAD_LETTERS
        if failed:
            raise CommandFailed(text)
        return text

    return (
        Command(
            name="list-dead-letters",
            summary="show the events that the service could not handle: id, time, subject, last error",
            run=show,
        ),
        Command(
            name="redeliver-dead-letters",
            summary="let events that the service could not handle take effect after all, oldest first",
            run=deliver,
            arguments={
                "event_ids": {"nargs": "*", "type": UUID, "metavar": "EVENT_ID", "help": "which; all, if none is given"}
            },
        ),
    )


_NO_DEAD_LETTERS = "There are no dead letters"


def _line_of(letter: DeadLetter) -> str:
    return f"{letter.event_id}  {letter.parked_at:%Y-%m-%dT%H:%M:%SZ}  {letter.subject}  {letter.error}"


if __name__ == "__main__":
    main()
