"""Command line of the local stack: `python -m deploy.local run` and `python -m deploy.local identity NAME`."""

import argparse
import asyncio
import os
import sys

from deploy.local.aws import InvalidNameError
from deploy.local.identity import NotRunningError, issue
from deploy.local.part import PartFailedError
from deploy.local.stack import SettingError, Stack, read_settings
from deploy.local.state import StateDirectory, StateInUseError


def main() -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="bring the whole stack up and keep it up until Ctrl-C")
    identity = commands.add_parser("identity", help="print export lines for another demo user of the running stack")
    identity.add_argument("name")
    arguments = parser.parse_args()
    try:
        settings = read_settings(os.environ)
        if arguments.command == "identity":
            sys.stdout.write(issue(StateDirectory(settings.state), arguments.name))
            return 0
        return asyncio.run(Stack(settings).run())
    except (InvalidNameError, NotRunningError, PartFailedError, SettingError, StateInUseError) as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
