"""Forget what ended long ago."""

from datetime import datetime, timedelta
from functools import partial

from services.auth.context import Context
from services.auth.operations.log_in import WINDOW_SECONDS
from services.auth.storage.api_keys import PURGE_KEYS
from services.auth.storage.console_codes import PURGE_CONSOLE_CODES
from services.auth.storage.login_windows import PURGE_LOGIN_WINDOWS
from shared.background import each_in_turn
from shared.database.purge import purge

_KEPT_AFTER_END = timedelta(hours=1)


async def purge_ended(context: Context, *, now: datetime) -> bool:
    """Forget keys that expired an hour ago and more, past log-in windows and codes; True: there may be more."""
    ended = (
        (PURGE_LOGIN_WINDOWS, now - timedelta(seconds=10 * WINDOW_SECONDS)),
        (PURGE_CONSOLE_CODES, now),
        (PURGE_KEYS, now - _KEPT_AFTER_END),
    )
    return await each_in_turn(partial(purge, context.database, statement, before=before) for statement, before in ended)
