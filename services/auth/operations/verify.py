"""Whom a key stands for."""

import hmac
import re
from datetime import datetime

from services.auth.context import Context
from services.auth.domain.keys import StoredKey, judge_key
from services.auth.storage.api_keys import FIND_KEY
from shared.contracts.auth import Identity
from shared.database import to_struct
from shared.errors import Unauthenticated

_SHA256 = re.compile(r"[0-9a-f]{64}")


async def verify_key(context: Context, *, key_hash: str, now: datetime) -> Identity:
    """Whom a key stands for, by its SHA-256 in hexadecimal. One statement, nothing written.

    Raises:
        Unauthenticated: Unknown, expired or revoked.
        UserDisabled: Its owner is disabled.
    """
    if not _SHA256.fullmatch(key_hash):
        raise Unauthenticated
    digest = context.hasher.digest(key_hash)
    row = await context.database.fetch_one(FIND_KEY, hash=digest)
    if row is None or not hmac.compare_digest(row["hash"], digest):
        raise Unauthenticated
    identity = judge_key(to_struct(row, StoredKey), now)
    context.last_used.note(identity.key_id, now)
    return identity
