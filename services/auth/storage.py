"""Auth's tables and every SQL statement on them."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from shared.database import Statement

metadata = sa.MetaData()

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("role_id", sa.Text, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("disabled_at", sa.DateTime(timezone=True)),
    sa.Column("is_operator", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("account", "role_id", "username", name="users_identity"),
    sa.Index("users_username", "username"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("key_id", sa.Text, nullable=False, unique=True),
    sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id", name="api_keys_user"), nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("session_ends_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("dies_at", sa.DateTime(timezone=True)),
    sa.Column("revoked_reason", sa.Text),
    sa.Column("last_used_at", sa.DateTime(timezone=True)),
    sa.Index("api_keys_user_id", "user_id", "created_at", "id"),
    sa.Index("api_keys_expires_at", "expires_at"),
    sa.CheckConstraint("expires_at <= session_ends_at", name="api_keys_end_with_session"),
)

login_windows = sa.Table(
    "login_windows",
    metadata,
    sa.Column("bucket", sa.LargeBinary, primary_key=True),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Index("login_windows_started_at", "started_at"),
)

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

PURGE_BATCH = 1000
PURGE_KEYS = Statement(
    sa.delete(api_keys).where(
        api_keys.c.id.in_(
            sa.select(api_keys.c.id)
            .where(api_keys.c.expires_at < sa.bindparam("before"))
            .limit(PURGE_BATCH)
            .with_for_update(skip_locked=True)
        )
    )
)
PURGE_LOGIN_WINDOWS = Statement(sa.delete(login_windows).where(login_windows.c.started_at < sa.bindparam("before")))

COUNT_LOGIN = Statement(
    sa.text(
        "INSERT INTO login_windows AS known (bucket, started_at, attempts) VALUES (:bucket, :started_at, 1) "
        "ON CONFLICT (bucket) DO UPDATE SET started_at = greatest(known.started_at, excluded.started_at), "
        "attempts = CASE WHEN known.started_at >= excluded.started_at THEN known.attempts + 1 ELSE 1 END "
        "RETURNING attempts"
    ).bindparams(
        sa.bindparam("bucket", type_=sa.LargeBinary), sa.bindparam("started_at", type_=sa.DateTime(timezone=True))
    )
)
"""One more attempt in the bucket's window; the attempts so far."""
