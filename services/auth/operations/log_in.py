"""Exchange AWS credentials for a key."""

from datetime import datetime, timedelta

from prometheus_client import Counter

from services.auth.adapters.sts import CredentialsRefused, StsUnavailable
from services.auth.context import Context
from services.auth.domain.keys import (
    IssuedKey,
    UserDisabled,
    session_end,
)
from services.auth.domain.roles import (
    AwsCredentials,
    NotAnAllowedRole,
    Person,
    SignedQuestion,
    UnusableSessionName,
    admit,
    is_operator,
)
from services.auth.operations.record import insert_key, issued_event, record_counted_events
from services.auth.storage.login_windows import COUNT_LOGIN
from services.auth.storage.users import ADMIT_USER, FIRST_VERSION
from shared.api_key import ApiKey
from shared.audit import record_act
from shared.contracts.auth import AuthEvent, UserCreated
from shared.errors import RateLimited

WINDOW_SECONDS = 60
_REFUSALS = {
    CredentialsRefused: "refused",
    NotAnAllowedRole: "not_allowed",
    UnusableSessionName: "not_allowed",
    UserDisabled: "disabled",
    StsUnavailable: "unavailable",
}
_logins = Counter("gpudev_logins", "Attempts to log in, by outcome", ["outcome"])
for _outcome in ("granted", "limited", "failed", *_REFUSALS.values()):
    _logins.labels(_outcome)  # from 0: of a counter that begins with its first event nothing tells that it has risen


async def log_in(
    context: Context, *, credentials: AwsCredentials | SignedQuestion, address: str, new_key: ApiKey, now: datetime
) -> tuple[Person, IssuedKey]:
    """Exchange AWS credentials, or what was signed with them, for a key.

    `now` is before the question to AWS, and the session counts from it.

    Raises:
        RateLimited: Too many attempts from the address with the access key id.
        CredentialsRefused: Wrong, expired or incomplete.
        NotAnAllowedRole: Genuine, but not of an allowed role.
        UnusableSessionName: The session's name cannot be a username.
        UserDisabled: The user is known and disabled.
        StsUnavailable: AWS does not answer.
    """
    await count_access_key(context, address=address, access_key_id=credentials.access_key_id, now=now)
    try:
        caller = await context.sts.identify(credentials)
        person = admit(caller, context.policy.allowed_roles)
        issued = await open_session(context, person=person, new_key=new_key, now=now)
    except Exception as error:
        kinds = (outcome for kind, outcome in _REFUSALS.items() if isinstance(error, kind))
        _logins.labels(next(kinds, "failed")).inc()
        raise
    _logins.labels("granted").inc()
    return person, issued


async def count_address(context: Context, *, address: str, now: datetime) -> None:
    """Count an attempt of the address in the running minute.

    Raises:
        RateLimited: It has had its share.
    """
    await _count(context, context.hasher.bucket("address", address), context.policy.per_minute_address, now)


async def count_access_key(context: Context, *, address: str, access_key_id: str, now: datetime) -> None:
    """Count an attempt with the access key id from the address: others' attempts from elsewhere bar nobody.

    Raises:
        RateLimited: It has had its share.
    """
    bucket = context.hasher.bucket("access_key", f"{access_key_id} {address}")
    await _count(context, bucket, context.policy.per_minute_access_key, now)


async def open_session(context: Context, *, person: Person, new_key: ApiKey, now: datetime) -> IssuedKey:
    """Make the user if they are new, and give them a key.

    Raises:
        UserDisabled: The user is known and disabled; nothing changes.
    """
    async with context.database.transaction() as transaction:
        (user,) = await transaction.fetch_all(
            ADMIT_USER,
            account=person.account,
            role_id=person.role_id,
            username=person.session_name,
            is_operator=is_operator(person, context.policy.operators),
            now=now,
        )
        if user["disabled_at"] is not None:
            raise UserDisabled
        issued = await insert_key(
            context,
            transaction,
            new_key=new_key,
            user_id=user["id"],
            username=person.session_name,
            session_ends_at=session_end(context.terms, now),
            now=now,
        )
        events: list[AuthEvent] = [issued_event(issued, new_key)]
        if user["version"] == FIRST_VERSION:
            events.insert(0, UserCreated(user_id=user["id"], username=issued.username, account=person.account))
        await record_counted_events(transaction, context.outbox, events, last_version=user["version"], now=now)
        await record_act(transaction, issued.audited(), now=now, user_id=issued.user_id, username=issued.username)
    return issued


async def _count(context: Context, bucket: bytes, limit: int, now: datetime) -> None:
    second = int(now.timestamp()) % WINDOW_SECONDS
    started_at = now.replace(microsecond=0) - timedelta(seconds=second)
    if await context.database.fetch_value(COUNT_LOGIN, bucket=bucket, started_at=started_at) > limit:
        _logins.labels("limited").inc()
        raise RateLimited("Too many log-ins, try again in a minute", retry_after_seconds=WINDOW_SECONDS - second)
