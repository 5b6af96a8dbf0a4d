"""Auth's commands of `gpudev-admin`."""

from argparse import Namespace
from collections.abc import Sequence

from services.auth.context import Context
from services.auth.operations.disable import disable_user, enable_user
from services.auth.operations.read import find_users
from shared.admin import Command

_USER_ID = {"user_id": {"type": int, "metavar": "USER_ID", "help": "as find-user shows it"}}


def commands(context: Context) -> Sequence[Command]:
    """Finding, disabling and enabling users."""

    async def find(given: Namespace) -> str:
        users = await find_users(context, username=given.username)
        lines = [
            f"{user.id}  {user.username}  account {user.account}  role {user.role_id}"
            f"{'  disabled' if user.disabled_at else ''}"
            for user in users
        ]
        return "\n".join(lines) or f"There is no user named '{given.username}'"

    async def disable(given: Namespace) -> str:
        done = await disable_user(context, user_id=given.user_id, now=context.clock())
        return f"User {given.user_id} is disabled; keys revoked: {done.answer.keys_revoked}"

    async def enable(given: Namespace) -> str:
        await enable_user(context, user_id=given.user_id, now=context.clock())
        return f"User {given.user_id} is enabled"

    return (
        Command(
            name="find-user",
            summary="show the ids of the users of a name: one for each role that they log in with",
            run=find,
            arguments={"username": {"metavar": "USERNAME"}},
        ),
        Command(
            name="disable-user",
            summary="refuse the user, revoke all keys and cancel all jobs; takes effect within a second or two",
            run=disable,
            arguments=_USER_ID,
        ),
        Command(name="enable-user", summary="let the user log in again", run=enable, arguments=_USER_ID),
    )
