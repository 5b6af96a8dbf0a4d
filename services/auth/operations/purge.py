"""Forget what ended long ago."""

from datetime import datetime, timedelta

from services.auth.context import Context
from services.auth.operations.log_in import WINDOW_SECONDS
from services.auth.storage.api_keys import PURGE_BATCH, PURGE_KEYS
from services.auth.storage.login_windows import PURGE_LOGIN_WINDOWS

_KEPT_AFTER_END = timedelta(hours=1)


async def purge_ended(context: Context, *, now: datetime) -> bool:
    """Forget keys that expired an hour ago and more, and past log-in windows; True: there may be more."""
    await context.database.execute(PURGE_LOGIN_WINDOWS, before=now - timedelta(seconds=10 * WINDOW_SECONDS))
    purged = await context.database.execute(PURGE_KEYS, before=now - _KEPT_AFTER_END)
    return purged == PURGE_BATCH
