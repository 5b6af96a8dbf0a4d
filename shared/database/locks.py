"""Advisory locks by name: the one place where a name becomes PostgreSQL's number.

Replicas of two versions exclude each other during an upgrade as long as the name stays, so a name is never changed.
"""

import sqlalchemy as sa

from shared.database.statement import Statement

_LETTERS = 4
SCHEMA = sa.func.hashtext(sa.func.current_schema())
"""Second key of a lock that each service has for itself."""


def lock_key(name: str) -> int:
    """The key of the lock of that name: its letters, read as one number of 32 bits.

    Raises:
        ValueError: The name does not have four ASCII letters.
    """
    if len(name) != _LETTERS or not (name.isascii() and name.isalpha()):
        raise ValueError(f"the name of an advisory lock has {_LETTERS} ASCII letters: {name!r}")
    return int.from_bytes(name.encode())


def try_lock(name: str) -> Statement:
    """Takes the service's lock of that name until the transaction ends; says false when another holds it."""
    return Statement(sa.select(sa.func.pg_try_advisory_xact_lock(lock_key(name), SCHEMA)))
