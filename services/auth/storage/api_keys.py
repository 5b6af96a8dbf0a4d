"""Statements on API keys."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from services.auth.storage.tables import api_keys, users
from shared.database import Statement
from shared.database.purge import delete_some

_now = sa.bindparam("now", type_=sa.DateTime(timezone=True))
_user_id = sa.bindparam("user_id", type_=sa.BigInteger)
_key_columns = (
    api_keys.c.id,
    api_keys.c.key_id,
    api_keys.c.user_id,
    users.c.username,
    api_keys.c.hash,
    api_keys.c.session_ends_at,
    api_keys.c.expires_at,
    api_keys.c.dies_at,
    api_keys.c.revoked_reason,
    users.c.disabled_at.is_not(None).label("user_disabled"),
    users.c.is_operator,
)
_keys_and_users = api_keys.join(users, users.c.id == api_keys.c.user_id)
_alive = sa.and_(
    api_keys.c.expires_at > _now,
    sa.or_(api_keys.c.dies_at.is_(None), api_keys.c.dies_at > _now),
)
FIND_KEY = Statement(
    sa.select(*_key_columns).select_from(_keys_and_users).where(api_keys.c.hash == sa.bindparam("hash"))
)
FIND_OWN_KEY = Statement(
    sa.select(*_key_columns)
    .select_from(_keys_and_users)
    .where(api_keys.c.key_id == sa.bindparam("key_id"), api_keys.c.user_id == _user_id)
)
"""Read it with the user's row locked: every change of a key holds that lock."""
INSERT_KEY = Statement(
    sa.insert(api_keys).values(
        {
            name: sa.bindparam(name)
            for name in ("key_id", "user_id", "hash", "created_at", "session_ends_at", "expires_at")
        }
    )
)
REVOKE_KEY = Statement(
    sa.update(api_keys)
    .where(api_keys.c.id == sa.bindparam("key"))
    .values(dies_at=sa.bindparam("dies"), revoked_reason=sa.bindparam("reason"))
)
REVOKE_KEYS_OF_USER = Statement(
    sa.update(api_keys)
    .where(api_keys.c.user_id == _user_id, _alive)
    .values(dies_at=_now, revoked_reason=sa.bindparam("reason"))
    .returning(api_keys.c.key_id)
)
_live = sa.select(api_keys).where(api_keys.c.user_id == _user_id, _alive).cte("live")
_page = (
    sa.select(_live)
    .order_by(_live.c.created_at.desc(), _live.c.id.desc())
    .limit(sa.bindparam("limit", type_=sa.BigInteger))
    .offset(sa.bindparam("offset", type_=sa.BigInteger))
    .subquery("page")
)
_total = sa.select(sa.func.count().label("total")).select_from(_live).subquery("counted")
LIST_KEYS = Statement(
    sa.select(
        _total.c.total,
        _page.c.key_id,
        _page.c.created_at,
        sa.func.least(_page.c.expires_at, _page.c.dies_at).label("ends_at"),
        _page.c.last_used_at,
    )
    .select_from(_total.outerjoin(_page, sa.true()))
    .order_by(_page.c.created_at.desc(), _page.c.id.desc())
)
"""One row with nothing but the total when the page is empty."""
_used = (
    sa.func.unnest(
        sa.bindparam("key_ids", type_=ARRAY(sa.Text)), sa.bindparam("times", type_=ARRAY(sa.DateTime(timezone=True)))
    )
    .table_valued(sa.column("key_id", sa.Text), sa.column("used_at", sa.DateTime(timezone=True)))
    .alias("used")
    .render_derived()
)
# locked in the order of their ids: two replicas that write at once wait for each other, and do not deadlock
_locked = (
    sa.select(api_keys.c.id, _used.c.used_at)
    .join(_used, _used.c.key_id == api_keys.c.key_id)
    .order_by(api_keys.c.id)
    .with_for_update(key_share=True, of=api_keys)
    .cte("locked")
)
TOUCH_KEYS = Statement(
    sa.update(api_keys)
    .where(api_keys.c.id == _locked.c.id)
    .values(last_used_at=sa.func.greatest(api_keys.c.last_used_at, _locked.c.used_at))
)
PURGE_KEYS = delete_some(api_keys, api_keys.c.expires_at < sa.bindparam("before"))
