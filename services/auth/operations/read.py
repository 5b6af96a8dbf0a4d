"""What is asked about keys and users."""

from datetime import datetime

from services.auth.context import Context
from services.auth.domain.keys import KeyPage, ListedKey
from services.auth.domain.roles import SeenUser, User
from services.auth.storage.api_keys import LIST_KEYS
from services.auth.storage.users import COUNT_USERS, FIND_USERS, LIST_USERS
from shared.contracts.auth import Identity
from shared.database import to_struct
from shared.operators import check_operator


async def list_keys(context: Context, *, user_id: int, limit: int, offset: int, now: datetime) -> KeyPage:
    """The user's own keys that are alive, newest first; page and total are of one snapshot."""
    rows = await context.database.fetch_all(LIST_KEYS, user_id=user_id, limit=limit, offset=offset, now=now)
    keys = [to_struct(row, ListedKey) for row in rows if row["key_id"] is not None]
    return KeyPage(keys=keys, total=rows[0]["total"])


async def list_users(context: Context, *, asker: Identity, limit: int, offset: int) -> tuple[list[SeenUser], int]:
    """Everybody who has ever logged in, who did last first; and how many they are.

    Raises:
        OperatorsOnly: The asker is no operator.
    """
    check_operator(asker, "list users")
    async with context.database.snapshot() as snapshot:
        rows = await snapshot.fetch_all(LIST_USERS, limit=limit, offset=offset)
        total = await snapshot.fetch_value(COUNT_USERS)
    return [to_struct(row, SeenUser) for row in rows], total


async def find_users(context: Context, *, username: str) -> list[User]:
    """The users of a name: one for each role and account that they log in with."""
    return [to_struct(row, User) for row in await context.database.fetch_all(FIND_USERS, username=username)]
