"""The verbs of auth: log in, check, rotate, list and revoke keys, disable users."""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from services.auth import storage
from services.auth.domain.hashing import KeyHasher
from services.auth.domain.keys import (
    ROTATION_GRACE,
    KeyTerms,
    RevocationReason,
    StoredKey,
    UserDisabled,
    judge_key,
    key_end,
    session_end,
    sooner,
)
from services.auth.domain.roles import AllowedRole, Person, admit, is_operator
from services.auth.last_used import LastUsed
from services.auth.sts import AwsCredentials, Sts
from shared.api_key import ApiKey, key_prefix
from shared.contracts.auth import AuthEvent, Identity, KeyIssued, KeyRevoked, UserCreated, UserEnabled
from shared.contracts.auth import UserDisabled as UserDisabledEvent
from shared.database import Database, Row, Transaction
from shared.encryption import Cipher
from shared.errors import NotFound, RateLimited, Unauthenticated
from shared.idempotency import IdempotencyKey, Outcome, once
from shared.messaging import Draft, record_event
from shared.messaging.outbox import Wakes

_WINDOW_SECONDS = 60
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEPT_AFTER_END = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class LoginLimits:
    per_minute_address: int
    per_minute_access_key: int


@dataclass(frozen=True, kw_only=True)
class Auth:
    """What the operations work with."""

    database: Database
    relay: Wakes
    cipher: Cipher
    sts: Sts
    hasher: KeyHasher
    allowed_roles: tuple[AllowedRole, ...]
    operators: tuple[str, ...]
    """ARNs, as in the settings."""
    terms: KeyTerms
    limits: LoginLimits
    last_used: LastUsed


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key and whose it is: the only time that the key is seen."""

    text: str
    prefix: str
    user_id: int
    username: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"IssuedKey({self.prefix}_...)"


class RevokedKey(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str
    revoked_at: datetime
    """When it died."""


class ListedKey(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str
    created_at: datetime
    ends_at: datetime
    last_used_at: datetime | None


class KeyPage(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[ListedKey]
    total: int


async def log_in(
    auth: Auth, *, credentials: AwsCredentials, address: str, new_key: ApiKey, now: datetime
) -> tuple[Person, IssuedKey]:
    """Exchange AWS credentials for a key. `now` is before the question to AWS, and the session counts from it.

    Raises:
        RateLimited: Too many attempts from the address with the access key id.
        CredentialsRefused: Wrong, expired or incomplete.
        NotAnAllowedRole: Genuine, but not of an allowed role.
        UnusableSessionName: The session's name cannot be a username.
        UserDisabled: The user is known and disabled.
        StsUnavailable: AWS does not answer.
    """
    await count_access_key(auth, address=address, access_key_id=credentials.access_key_id, now=now)
    caller = await auth.sts.identify(credentials)
    person = admit(caller, auth.allowed_roles)
    return person, await open_session(auth, person=person, new_key=new_key, now=now)


async def count_address(auth: Auth, *, address: str, now: datetime) -> None:
    """Count an attempt of the address in the running minute.

    Raises:
        RateLimited: It has had its share.
    """
    await _count(auth, auth.hasher.bucket("address", address), auth.limits.per_minute_address, now)


async def count_access_key(auth: Auth, *, address: str, access_key_id: str, now: datetime) -> None:
    """Count an attempt with the access key id from the address: others' attempts from elsewhere bar nobody.

    Raises:
        RateLimited: It has had its share.
    """
    bucket = auth.hasher.bucket("access_key", f"{access_key_id} {address}")
    await _count(auth, bucket, auth.limits.per_minute_access_key, now)


async def _count(auth: Auth, bucket: bytes, limit: int, now: datetime) -> None:
    second = int(now.timestamp()) % _WINDOW_SECONDS
    started_at = now.replace(microsecond=0) - timedelta(seconds=second)
    if await auth.database.fetch_value(storage.COUNT_LOGIN, bucket=bucket, started_at=started_at) > limit:
        raise RateLimited("Too many log-ins, try again in a minute", retry_after_seconds=_WINDOW_SECONDS - second)


async def open_session(auth: Auth, *, person: Person, new_key: ApiKey, now: datetime) -> IssuedKey:
    """Make the user if they are new, and give them a key.

    Raises:
        UserDisabled: The user is known and disabled; nothing changes.
    """
    async with auth.database.transaction() as transaction:
        (user,) = await transaction.fetch_all(
            storage.ADMIT_USER,
            account=person.account,
            role_id=person.role_id,
            username=person.session_name,
            is_operator=is_operator(person, auth.operators),
            now=now,
        )
        if user["disabled_at"] is not None:
            raise UserDisabled
        issued = await _insert_key(
            auth,
            transaction,
            new_key=new_key,
            user_id=user["id"],
            username=person.session_name,
            session_ends_at=session_end(auth.terms, now),
            now=now,
        )
        events: list[AuthEvent] = [_issued_event(issued, new_key)]
        if user["version"] == storage.FIRST_VERSION:
            created = UserCreated(user_id=user["id"], username=person.session_name, account=person.account)
            events.insert(0, created)
        await _record(auth.relay, transaction, events, last_version=user["version"], now=now)
    return issued


async def verify_key(auth: Auth, *, key_hash: str, now: datetime) -> Identity:
    """Whom a key stands for, by its SHA-256 in hexadecimal. One statement, nothing written.

    Raises:
        Unauthenticated: Unknown, expired or revoked.
        UserDisabled: Its owner is disabled.
    """
    if not _SHA256.fullmatch(key_hash):
        raise Unauthenticated
    digest = auth.hasher.digest(key_hash)
    row = await auth.database.fetch_one(storage.FIND_KEY, hash=digest)
    if row is None or not hmac.compare_digest(row["hash"], digest):
        raise Unauthenticated
    identity = judge_key(_stored(row), now)
    auth.last_used.note(identity.key_id, now)
    return identity


async def rotate_key(
    auth: Auth, *, identity: Identity, new_key: ApiKey, idempotency_key: IdempotencyKey | None, now: datetime
) -> Outcome[IssuedKey]:
    """Give a new key for the one that was shown, in the same session; the old one dies 60 s later.

    An old key that is shown again within those 60 s gets another new key, and dies no later.

    Raises:
        Unauthenticated: The key has ended since it was checked.
        UserDisabled: So was the user.
    """
    async with auth.database.transaction() as transaction:

        async def effect() -> IssuedKey:
            return await _rotate(auth, transaction, identity=identity, new_key=new_key, now=now)

        return await once(transaction, effect, key=idempotency_key, answer_type=IssuedKey, cipher=auth.cipher, now=now)


async def revoke_key(
    auth: Auth, *, user_id: int, key_id: str, idempotency_key: IdempotencyKey | None, now: datetime
) -> Outcome[RevokedKey]:
    """Let one of the user's own keys die at once. Of a key that has ended already, tells when.

    Raises:
        NotFound: There is no such key, or it is someone else's.
    """
    async with auth.database.transaction() as transaction:

        async def effect() -> RevokedKey:
            return await _revoke(auth, transaction, user_id=user_id, key_id=key_id, now=now)

        return await once(transaction, effect, key=idempotency_key, answer_type=RevokedKey, cipher=auth.cipher, now=now)


async def list_keys(auth: Auth, *, user_id: int, limit: int, offset: int, now: datetime) -> KeyPage:
    """The user's own keys that are alive, newest first; page and total are of one snapshot."""
    rows = await auth.database.fetch_all(storage.LIST_KEYS, user_id=user_id, limit=limit, offset=offset, now=now)
    keys = [
        ListedKey(
            key_id=row["key_id"],
            created_at=row["created_at"],
            ends_at=row["ends_at"],
            last_used_at=row["last_used_at"],
        )
        for row in rows
        if row["key_id"] is not None
    ]
    return KeyPage(keys=keys, total=rows[0]["total"])


async def disable_user(*, database: Database, relay: Wakes, user_id: int, now: datetime) -> int:
    """Refuse the user from now on, and revoke their keys; the number of keys revoked. Again changes nothing.

    Raises:
        NotFound: There is no such user.
    """
    async with database.transaction() as transaction:
        user = await transaction.fetch_one(storage.LOCK_USER, user_id=user_id)
        if user is None:
            raise NotFound("User")
        events: list[AuthEvent] = []
        if user["disabled_at"] is None:
            await transaction.execute(storage.SET_DISABLED, user_id=user_id, disabled_at=now)
            events.append(UserDisabledEvent(user_id=user_id, disabled_at=now))
        reason = RevocationReason.USER_DISABLED
        rows = await transaction.fetch_all(storage.REVOKE_KEYS_OF_USER, user_id=user_id, reason=reason, now=now)
        events += [_revoked_event(user_id, row["key_id"], reason, now) for row in rows]
        await _count_events(transaction, user, len(events))
        await _record(relay, transaction, events, last_version=user["version"] + len(events), now=now)
    return len(rows)


async def enable_user(*, database: Database, relay: Wakes, user_id: int, now: datetime) -> None:
    """Let a disabled user log in again; the old keys stay dead. Again changes nothing.

    Raises:
        NotFound: There is no such user.
    """
    async with database.transaction() as transaction:
        user = await transaction.fetch_one(storage.LOCK_USER, user_id=user_id)
        if user is None:
            raise NotFound("User")
        if user["disabled_at"] is None:
            return
        await transaction.execute(storage.SET_DISABLED, user_id=user_id, disabled_at=None)
        await _count_events(transaction, user, 1)
        await _record(relay, transaction, [UserEnabled(user_id=user_id)], last_version=user["version"] + 1, now=now)


async def purge_ended(auth: Auth, *, now: datetime) -> bool:
    """Forget keys that expired an hour ago and more, and past log-in windows; True: there may be more."""
    await auth.database.execute(storage.PURGE_LOGIN_WINDOWS, before=now - timedelta(seconds=10 * _WINDOW_SECONDS))
    purged = await auth.database.execute(storage.PURGE_KEYS, before=now - _KEPT_AFTER_END)
    return purged == storage.PURGE_BATCH


async def _rotate(
    auth: Auth, transaction: Transaction, *, identity: Identity, new_key: ApiKey, now: datetime
) -> IssuedKey:
    user = await _locked_user(transaction, identity.user_id)
    row = await transaction.fetch_one(storage.FIND_OWN_KEY, key_id=identity.key_id, user_id=identity.user_id)
    if row is None:
        raise Unauthenticated
    old = _stored(row)
    judge_key(old, now)
    issued = await _insert_key(
        auth,
        transaction,
        new_key=new_key,
        user_id=identity.user_id,
        username=identity.username,
        session_ends_at=row["session_ends_at"],
        now=now,
    )
    events: list[AuthEvent] = [_issued_event(issued, new_key)]
    events += await _end_key(transaction, row["id"], old, dies_at=now + ROTATION_GRACE, reason=RevocationReason.ROTATED)
    await _count_events(transaction, user, len(events))
    await _record(auth.relay, transaction, events, last_version=user["version"] + len(events), now=now)
    return issued


async def _revoke(auth: Auth, transaction: Transaction, *, user_id: int, key_id: str, now: datetime) -> RevokedKey:
    user = await _locked_user(transaction, user_id)
    row = await transaction.fetch_one(storage.FIND_OWN_KEY, key_id=key_id, user_id=user_id)
    if row is None:
        raise NotFound("API key")
    key = _stored(row)
    if key.ends_at <= now:
        return RevokedKey(key_id=key_id, revoked_at=key.ends_at)
    events = await _end_key(transaction, row["id"], key, dies_at=now, reason=RevocationReason.REVOKED)
    await _count_events(transaction, user, len(events))
    await _record(auth.relay, transaction, events, last_version=user["version"] + len(events), now=now)
    return RevokedKey(key_id=key_id, revoked_at=now)


async def _locked_user(transaction: Transaction, user_id: int) -> Row:
    user = await transaction.fetch_one(storage.LOCK_USER, user_id=user_id)
    if user is None:
        raise Unauthenticated
    if user["disabled_at"] is not None:
        raise UserDisabled
    return user


async def _insert_key(
    auth: Auth,
    transaction: Transaction,
    *,
    new_key: ApiKey,
    user_id: int,
    username: str,
    session_ends_at: datetime,
    now: datetime,
) -> IssuedKey:
    expires_at = key_end(auth.terms, now, session_ends_at)
    await transaction.execute(
        storage.INSERT_KEY,
        key_id=new_key.key_id,
        user_id=user_id,
        hash=auth.hasher.digest(new_key.hash),
        created_at=now,
        session_ends_at=session_ends_at,
        expires_at=expires_at,
    )
    return IssuedKey(
        text=new_key.text, prefix=new_key.prefix, user_id=user_id, username=username, expires_at=expires_at
    )


async def _end_key(
    transaction: Transaction, row_id: int, key: StoredKey, *, dies_at: datetime, reason: RevocationReason
) -> list[AuthEvent]:
    """Bring the key's end forward; no event when it ends sooner anyway."""
    dies_at = sooner(key.dies_at, dies_at)
    if dies_at == key.dies_at:
        return []
    await transaction.execute(storage.REVOKE_KEY, key=row_id, dies=dies_at, reason=reason)
    return [_revoked_event(key.user_id, key.key_id, reason, dies_at)]


async def _count_events(transaction: Transaction, user: Row, number: int) -> None:
    if number:
        await transaction.execute(storage.SET_VERSION, user_id=user["id"], new_version=user["version"] + number)


async def _record(
    relay: Wakes, transaction: Transaction, events: Sequence[AuthEvent], *, last_version: int, now: datetime
) -> None:
    first_version = last_version - len(events) + 1
    for version, event in enumerate(events, start=first_version):
        await record_event(transaction, Draft(data=event, version=version, occurred_at=now), relay)


def _issued_event(issued: IssuedKey, key: ApiKey) -> KeyIssued:
    return KeyIssued(user_id=issued.user_id, key_id=key.key_id, key_prefix=issued.prefix, expires_at=issued.expires_at)


def _revoked_event(user_id: int, key_id: str, reason: RevocationReason, dies_at: datetime) -> KeyRevoked:
    return KeyRevoked(
        user_id=user_id, key_id=key_id, key_prefix=key_prefix(key_id), reason=reason.value, dies_at=dies_at
    )


def _stored(row: Row) -> StoredKey:
    # field by field of the struct: what a statement lacks is an error here, and never a default
    return StoredKey(**{name: row[name] for name in StoredKey.__struct_fields__})
