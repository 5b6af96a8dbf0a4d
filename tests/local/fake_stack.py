"""Runs the real stack around the services of another folder: `python tests/local/fake_stack.py FOLDER`.

The folder's services stand in for the project's own, so that these tests hold the stack to its word whatever
state the services are in.
"""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from deploy.local.stack import SettingError, Stack, read_settings
from deploy.local.state import StateInUseError

if __name__ == "__main__":
    stack = Stack(
        read_settings(os.environ),
        services=Path(sys.argv[1]),
        migrate=(sys.executable, "-c", "print('no migrations')"),
        renewal_seconds=float(os.environ.get("RENEWAL_SECONDS", "3600")),
    )
    try:
        sys.exit(asyncio.run(stack.run()))
    except (SettingError, StateInUseError) as error:
        sys.exit(str(error))
