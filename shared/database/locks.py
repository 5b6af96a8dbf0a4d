"""Advisory locks by name: the one place where a name becomes PostgreSQL's number.

Replicas of two versions exclude each other during an upgrade as long as the name stays, so a name is never changed.
"""

from typing import Any

import sqlalchemy as sa

from shared.database.statement import Statement

_LETTERS = 4
# second key of a lock that each service has for itself
_SCHEMA = sa.func.hashtext(sa.func.current_schema())
_USER_ID = sa.bindparam("user_id", type_=sa.BigInteger)


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
    return Statement(sa.select(sa.func.pg_try_advisory_xact_lock(lock_key(name), _SCHEMA)))


def try_session_lock(name: str) -> Statement:
    """Takes the service's lock of that name until the session ends; says false when another holds it."""
    return Statement(sa.select(sa.func.pg_try_advisory_lock(lock_key(name), _SCHEMA)))


def wait_for_session_lock(name: str) -> sa.Select[Any]:
    """Waits for the service's lock of that name, and has it until the session ends."""
    return sa.select(sa.func.pg_advisory_lock(lock_key(name), _SCHEMA))


def wait_for_user_lock(name: str) -> Statement:
    """Waits for the lock of that name which each user (`user_id`) has, and has it until the transaction ends."""
    key = sa.func.hashtextextended(sa.cast(_USER_ID, sa.Text), sa.literal(lock_key(name), sa.BigInteger))
    return Statement(sa.select(sa.func.pg_advisory_xact_lock(key)))


def try_text_lock() -> Statement:
    """Takes the lock of a text (`key`) of a user (`user_id`) until the transaction ends; false: another holds it.

    It has no name: whatever locks a text of a user locks the same.
    """
    return Statement(sa.select(takes_text_lock(sa.bindparam("key", type_=sa.Text), _USER_ID)))


def takes_text_lock(text: sa.ColumnElement[str], user_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """What `try_text_lock` says, for statements that take the locks of many texts."""
    return sa.func.pg_try_advisory_xact_lock(sa.func.hashtextextended(text, user_id))
