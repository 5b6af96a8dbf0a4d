"""What owners ask of their running jobs: one transaction each, state and event together."""

from datetime import datetime
from functools import partial

from services.jobs import storage
from services.jobs.domain.access import BARE, MAX_USERS, find_user
from services.jobs.domain.extension import SHOWN_AFTER, extension_refusal
from services.jobs.domain.facts import Extend, JupyterRequested, UserRequested
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.table import STOPPING, change
from services.jobs.operations import Accepted, lock_own, new_jupyter_token, write_change
from services.jobs.resources import Resources
from shared.database import Transaction
from shared.errors import Conflict
from shared.idempotency import IdempotencyKey, Outcome, once


class JobNotActive(Conflict):
    """The request needs a running job."""

    def __init__(self, job: Job) -> None:
        state = STOPPING if job.phase is Phase.ENDING else job.status.value
        super().__init__(f"The job is not active: it is {state}")


class ExtensionRefused(Conflict):
    """The text says why, and how much may be asked for."""


class NoTools(Conflict):
    """The cluster's pods hold nothing but the user's image."""

    def __init__(self) -> None:
        super().__init__(BARE)


class TooManyUsers(Conflict):
    def __init__(self) -> None:
        super().__init__(f"At most {MAX_USERS} GitHub users can be added to a job")


async def extend_job(
    *,
    user_id: int,
    job_id: str,
    seconds: int,
    shown_at_once: bool,
    key: IdempotencyKey | None,
    now: datetime,
    resources: Resources,
) -> Outcome[Accepted]:
    """Give an active job more time; warnings before its end start anew.

    The row is locked, checked and written in one transaction, and its expiry is written under the row's revision:
    exactly one of the two wins. What is accepted has taken effect; that the job shows it later is for clients that read
    the job after the answer and wait for its end to change.

    Args:
        user_id: Its owner.
        job_id: Or a unique beginning of it.
        seconds: More than 0.
        shown_at_once: Else the job shows it three seconds later.
        key: Idempotency key, None without.
        now: Time of the request.
        resources: The service's.

    Raises:
        NotFound: No such job, or someone else's.
        JobNotActive: It does not run.
        ExtensionRefused: It would last longer than a job may.
    """
    async with resources.database.transaction() as transaction:
        effect = partial(_extend, transaction, user_id, job_id, seconds, shown_at_once, now, resources)
        return await once(transaction, effect, key=key, answer_type=Accepted, cipher=resources.cipher, now=now)


async def _extend(  # noqa: PLR0917 - private, and each is something else
    transaction: Transaction,
    user_id: int,
    job_id: str,
    seconds: int,
    shown_at_once: bool,
    now: datetime,
    resources: Resources,
) -> Accepted:
    job = await lock_own(transaction, user_id=user_id, job_id=job_id)
    # after the lock was had, which may take a while
    shown_at = None if shown_at_once else await transaction.fetch_value(storage.CLOCK) + SHOWN_AFTER
    changed = change(job, Extend(seconds, shown_at), now)
    if changed is None:
        raise JobNotActive(job)
    longest_seconds = resources.settings.max_total_hours * 3600
    refusal = extension_refusal(job, seconds=seconds, longest_seconds=longest_seconds, now=now)
    if refusal is not None:
        raise ExtensionRefused(refusal)
    written = await write_change(
        transaction=transaction, before=job, changed=changed, now=now, resources=resources
    )  # fmt: skip
    return Accepted(job.id, written.job.status, written.message_ids[0])


async def add_user(
    *, user_id: int, job_id: str, name: str, key: IdempotencyKey | None, now: datetime, resources: Resources
) -> Outcome[Accepted]:
    """Ask that a GitHub user's SSH keys open an active job; asked again, the first answer is given again.

    Args:
        user_id: Its owner.
        job_id: Or a unique beginning of it.
        name: By GitHub's rule, case aside.
        key: Idempotency key, None without.
        now: Time of the request.
        resources: The service's.

    Raises:
        NotFound: No such job, or someone else's.
        JobNotActive: It does not run.
        NoTools: Its pod has no SSH.
        TooManyUsers: Too many were asked for before.
    """
    async with resources.database.transaction() as transaction:
        effect = partial(_add_user, transaction, user_id, job_id, name, now, resources)
        return await once(transaction, effect, key=key, answer_type=Accepted, cipher=resources.cipher, now=now)


async def switch_jupyter(
    *, user_id: int, job_id: str, wanted: bool, key: IdempotencyKey | None, now: datetime, resources: Resources
) -> Outcome[Accepted]:
    """Ask that JupyterLab runs, with a new token, or not; asked again, the first answer is given again.

    Args:
        user_id: Its owner.
        job_id: Or a unique beginning of it.
        wanted: True: on.
        key: Idempotency key, None without.
        now: Time of the request.
        resources: The service's.

    Raises:
        NotFound: No such job, or someone else's.
        JobNotActive: It does not run.
        NoTools: Its pod has no Jupyter.
    """
    async with resources.database.transaction() as transaction:
        effect = partial(_switch_jupyter, transaction, user_id, job_id, wanted, now, resources)
        return await once(transaction, effect, key=key, answer_type=Accepted, cipher=resources.cipher, now=now)


async def _add_user(  # noqa: PLR0917 - private, and each is something else
    transaction: Transaction, user_id: int, job_id: str, name: str, now: datetime, resources: Resources
) -> Accepted:
    job = await _lock_running(transaction, user_id, job_id, resources)
    known = find_user(job, name)
    if known is None and len(job.users) >= MAX_USERS:
        raise TooManyUsers
    changed = change(job, UserRequested(name), now)
    if changed is None:
        asked = known.message_id if known is not None else None
        return Accepted(job.id, job.status, asked or job.submit_message_id)
    written = await write_change(transaction=transaction, before=job, changed=changed, now=now, resources=resources)
    return Accepted(job.id, written.job.status, written.message_ids[0])


async def _switch_jupyter(  # noqa: PLR0917 - private, and each is something else
    transaction: Transaction, user_id: int, job_id: str, wanted: bool, now: datetime, resources: Resources
) -> Accepted:
    job = await _lock_running(transaction, user_id, job_id, resources)
    token = new_jupyter_token(job.id, resources) if wanted else None
    changed = change(job, JupyterRequested(token), now)
    if changed is None:
        return Accepted(job.id, job.status, job.jupyter_message_id or job.submit_message_id)
    written = await write_change(transaction=transaction, before=job, changed=changed, now=now, resources=resources)
    return Accepted(job.id, written.job.status, written.message_ids[0])


async def _lock_running(transaction: Transaction, user_id: int, job_id: str, resources: Resources) -> Job:
    job = await lock_own(transaction, user_id=user_id, job_id=job_id)
    if job.phase is not Phase.ACTIVE:
        raise JobNotActive(job)
    if resources.settings.tools_image is None:
        raise NoTools
    return job
