"""What everything in auth works with."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from services.auth.adapters.sts import Sts
from services.auth.domain.hashing import KeyHasher
from services.auth.domain.keys import KeyTerms
from services.auth.domain.roles import AllowedRole
from services.auth.storage.last_used import LastUsed
from shared.database import Database
from shared.encryption import Cipher
from shared.messaging.outbox import Wakes


class LoginPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Who may log in, and how often."""

    allowed_roles: tuple[AllowedRole, ...]
    operators: tuple[str, ...]
    """ARNs of role sessions, as in the settings."""
    per_minute_address: int
    """Attempts from one address."""
    per_minute_access_key: int
    """Attempts with one access key id from one address."""


@dataclass(frozen=True, kw_only=True)
class Context:
    database: Database
    outbox: Wakes
    """Woken when an event was committed."""
    cipher: Cipher
    clock: Callable[[], datetime]
    sts: Sts
    hasher: KeyHasher
    last_used: LastUsed
    policy: LoginPolicy
    terms: KeyTerms
