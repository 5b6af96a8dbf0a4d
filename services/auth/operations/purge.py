"""Forget what ended long ago."""

from datetime import datetime, timedelta

from services.auth.context import Context
from services.auth.operations.log_in import WINDOW_SECONDS
from services.auth.storage.api_keys import PURGE_KEYS
from services.auth.storage.console_codes import PURGE_CONSOLE_CODES
from services.auth.storage.login_windows import PURGE_LOGIN_WINDOWS
from shared.database.purge import purge

_KEPT_AFTER_END = timedelta(hours=1)


async def purge_ended(context: Context, *, now: datetime) -> bool:
    """Forget keys that expired an hour ago and more, past log-in windows and codes; True: there may be more."""
    windows_end = now - timedelta(seconds=10 * WINDOW_SECONDS)
    more = await purge(context.database, PURGE_LOGIN_WINDOWS, before=windows_end)
    more |= await purge(context.database, PURGE_CONSOLE_CODES, before=now)
    return await purge(context.database, PURGE_KEYS, before=now - _KEPT_AFTER_END) or more
