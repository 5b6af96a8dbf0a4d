"""Who may enter a running job: SSH keys of GitHub users, and Jupyter."""

from datetime import datetime, timedelta

import structlog

from services.jobs import storage
from services.jobs.adapters.github import GitHub, GitHubUnavailable, NoKeys
from services.jobs.context import Context
from services.jobs.domain.accepted_answer import Accepted
from services.jobs.domain.access import BARE, MAX_USERS, find_user
from services.jobs.domain.facts import Fact, JupyterRequested, KeysFetched, UserDelayed, UserRefused, UserRequested
from services.jobs.domain.job import Job, JobUser, Phase
from services.jobs.domain.ssh_keys import authorized_keys
from services.jobs.domain.transition_table import transition_of
from services.jobs.operations.lock import JobNotActive, lock_own
from services.jobs.operations.seal import new_jupyter_token
from services.jobs.operations.transition import write_transition
from shared.database import Transaction
from shared.errors import Conflict
from shared.idempotency import IdempotencyKey, Outcome, idempotent

log = structlog.get_logger(__name__)


class NoTools(Conflict):
    """The cluster's pods hold nothing but the user's image."""

    def __init__(self) -> None:
        super().__init__(BARE)


class TooManyUsers(Conflict):
    def __init__(self) -> None:
        super().__init__(f"At most {MAX_USERS} GitHub users can be added to a job")


async def add_user(
    *, user_id: int, job_id: str, name: str, key: IdempotencyKey | None, now: datetime, context: Context
) -> Outcome[Accepted]:
    """Ask that a GitHub user's SSH keys open an active job; asked again, the first answer is given again.

    Args:
        user_id: Its owner.
        job_id: Or a unique beginning of it.
        name: By GitHub's rule, case aside.
        key: Idempotency key, None without.
        now: Time of the request.
        context: The service's.

    Raises:
        NotFound: No such job, or someone else's.
        JobNotActive: It does not run.
        NoTools: Its pod has no SSH.
        TooManyUsers: Too many were asked for before.
    """

    async def add(transaction: Transaction) -> Accepted:
        job = await _lock_running(transaction, user_id, job_id, context)
        known = find_user(job, name)
        if known is None and len(job.users) >= MAX_USERS:
            raise TooManyUsers
        changed = transition_of(job, UserRequested(name), now)
        if changed is None:
            asked = known.message_id if known is not None else None
            return Accepted(job.id, job.status, asked or job.submit_message_id)
        written = await write_transition(
            transaction=transaction, before=job, transition=changed, now=now, context=context
        )
        return Accepted(job.id, written.job.status, written.message_ids[0])

    return await idempotent(context, add, key=key, answer_type=Accepted, now=now, audit=Accepted.audited)


async def switch_jupyter(
    *, user_id: int, job_id: str, wanted: bool, key: IdempotencyKey | None, now: datetime, context: Context
) -> Outcome[Accepted]:
    """Ask that JupyterLab runs, with a new token, or not; asked again, the first answer is given again.

    Args:
        user_id: Its owner.
        job_id: Or a unique beginning of it.
        wanted: True: on.
        key: Idempotency key, None without.
        now: Time of the request.
        context: The service's.

    Raises:
        NotFound: No such job, or someone else's.
        JobNotActive: It does not run.
        NoTools: Its pod has no Jupyter.
    """

    async def switch(transaction: Transaction) -> Accepted:
        job = await _lock_running(transaction, user_id, job_id, context)
        token = new_jupyter_token(job.id, context) if wanted else None
        changed = transition_of(job, JupyterRequested(token), now)
        if changed is None:
            return Accepted(job.id, job.status, job.jupyter_message_id or job.submit_message_id)
        written = await write_transition(
            transaction=transaction, before=job, transition=changed, now=now, context=context
        )
        return Accepted(job.id, written.job.status, written.message_ids[0])

    return await idempotent(context, switch, key=key, answer_type=Accepted, now=now, audit=Accepted.audited)


async def _lock_running(transaction: Transaction, user_id: int, job_id: str, context: Context) -> Job:
    job = await lock_own(transaction, user_id=user_id, job_id=job_id)
    if job.phase is not Phase.ACTIVE:
        raise JobNotActive(job)
    if context.settings.tools_image is None:
        raise NoTools
    return job


async def fetch_user(*, job: Job, user: JobUser, github: GitHub, context: Context) -> Fact:
    """Have a user's keys and store them; what became of it. Idempotent."""
    now = context.clock()
    try:
        keys = await github.fetch_keys(user.name)
    except NoKeys as error:
        return UserRefused(job.epoch, user.name, error.text)
    except GitHubUnavailable as error:
        log.warning("github_unavailable", job_id=str(job.id), **error.context)
        if not user.first and is_overdue(user.requested_at, now, context):
            return UserRefused(job.epoch, user.name, error.text)
        return UserDelayed(job.epoch, user.name, f"{error.text}, it is tried again")
    await context.database.execute(
        storage.access.KEEP_KEYS, job_id=job.id, name=user.name.lower(), keys=keys, fetched_at=now
    )
    return KeysFetched(job.epoch, user.name)


async def stored_keys(*, job: Job, context: Context) -> str:
    """The authorized_keys of everyone whose keys were had."""
    rows = await context.database.fetch_all(storage.access.KEYS, job_id=job.id)
    keys = dict.fromkeys(key for row in rows for key in row["keys"])
    return authorized_keys(list(keys))


def is_overdue(asked_at: datetime, now: datetime, context: Context) -> bool:
    """Whether what was asked for then has been tried for long enough."""
    return now > asked_at + timedelta(seconds=context.settings.access_seconds)
