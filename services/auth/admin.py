"""For operators: `python -m services.auth.admin`.

    find-user <username>     ids of the users of that name (one per role that they come with)
    disable-user <user_id>   refuse the user, revoke the keys and end the jobs; takes effect within a second or two
    enable-user <user_id>    let the user log in again

The database is `GPUDEV_DATABASE_URL_AUTH`, else `GPUDEV_DATABASE_URL`. The events are published by the running service.
"""

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime

from services.auth.operations.disable import disable_user, enable_user
from services.auth.storage.users import FIND_USERS
from shared.database import Database
from shared.errors import GpuDevError


class _NoRelay:
    """The relay runs in the service; it looks by itself."""

    def wake(self) -> None:
        """Nothing to wake here."""


def main(arguments: list[str] | None = None) -> None:
    """Entry of `python -m services.auth.admin`."""
    parser = argparse.ArgumentParser(
        prog="python -m services.auth.admin", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("find-user").add_argument("username")
    commands.add_parser("disable-user").add_argument("user_id", type=int)
    commands.add_parser("enable-user").add_argument("user_id", type=int)
    given = parser.parse_args(arguments)
    dsn = os.environ.get("GPUDEV_DATABASE_URL_AUTH") or os.environ.get("GPUDEV_DATABASE_URL")
    if not dsn:
        sys.exit("Set GPUDEV_DATABASE_URL_AUTH to the postgresql:// URL of the auth service")
    try:
        sys.stdout.write(asyncio.run(_run(given, dsn)) + "\n")
    except GpuDevError as error:
        sys.exit(error.text)


async def _run(given: argparse.Namespace, dsn: str) -> str:
    database = Database(dsn, pool_size=1, name="auth-admin")
    try:
        if given.command == "find-user":
            return await _found(database, given.username)
        if given.command == "enable-user":
            await enable_user(database, outbox=_NoRelay(), user_id=given.user_id, now=datetime.now(UTC))
            return f"User {given.user_id} is enabled"
        keys = await disable_user(database, outbox=_NoRelay(), user_id=given.user_id, now=datetime.now(UTC))
        return f"User {given.user_id} is disabled; keys revoked: {keys}"
    finally:
        await database.close()


async def _found(database: Database, username: str) -> str:
    rows = await database.fetch_all(FIND_USERS, username=username)
    lines = [
        f"{row['id']}  {row['username']}  account {row['account']}  role {row['role_id']}"
        f"{'  disabled' if row['disabled_at'] else ''}"
        for row in rows
    ]
    return "\n".join(lines) or f"There is no user named '{username}'"


if __name__ == "__main__":
    main()
