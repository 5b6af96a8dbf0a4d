"""Statements on users."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.auth.storage.api_keys import _now, _user_id
from services.auth.storage.tables import users
from shared.database import Statement

FIRST_VERSION = 2
"""Of a user who logs in for the first time: user_created is 1, the key_issued that follows is 2."""
ADMIT_USER = Statement(
    insert(users)
    .values(
        account=sa.bindparam("account"),
        role_id=sa.bindparam("role_id"),
        username=sa.bindparam("username"),
        version=FIRST_VERSION,
        created_at=_now,
        last_login_at=_now,
        is_operator=sa.bindparam("is_operator"),
    )
    .on_conflict_do_update(
        constraint="users_identity",
        set_={"version": users.c.version + 1, "last_login_at": _now, "is_operator": sa.bindparam("is_operator")},
    )
    .returning(users.c.id, users.c.version, users.c.disabled_at)
)
"""Makes the user or counts one more event of theirs; locks their row."""
LOCK_USER = Statement(
    sa.select(users.c.id, users.c.username, users.c.version, users.c.disabled_at)
    .where(users.c.id == _user_id)
    .with_for_update(key_share=True)
)
SET_VERSION = Statement(sa.update(users).where(users.c.id == _user_id).values(version=sa.bindparam("new_version")))
SET_DISABLED = Statement(
    sa.update(users)
    .where(users.c.id == _user_id)
    .values(disabled_at=sa.bindparam("disabled_at", type_=sa.DateTime(timezone=True)))
)
FIND_USERS = Statement(
    sa.select(users.c.id, users.c.username, users.c.account, users.c.role_id, users.c.disabled_at)
    .where(users.c.username == sa.bindparam("username"))
    .order_by(users.c.id)
)
_seen = (
    users.c.id,
    users.c.username,
    users.c.account,
    users.c.role_id,
    users.c.disabled_at,
    users.c.is_operator,
    users.c.created_at,
    users.c.last_login_at,
)
LIST_USERS = Statement(
    sa.select(*_seen)
    .order_by(users.c.last_login_at.desc(), users.c.id)
    .limit(sa.bindparam("limit", type_=sa.BigInteger))
    .offset(sa.bindparam("offset", type_=sa.BigInteger))
)
COUNT_USERS = Statement(sa.select(sa.func.count()).select_from(users))
