"""Submitting many jobs at once: all of them, or none."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from services.jobs.context import Context
from services.jobs.domain.accepted_answer import Accepted, AcceptedBatch
from services.jobs.domain.submission import Submission, clashes, of_entry
from services.jobs.operations.claim_disk import claim_disk
from services.jobs.operations.insert_jobs import NewJob, insert_jobs, new_job
from services.jobs.operations.seal import request_mac
from services.jobs.operations.submit import JobIdTaken, check_waiting, find_earlier, size_refusal
from shared.contracts.auth import Identity
from shared.database import Transaction
from shared.errors import Conflict, InvalidInput
from shared.idempotency import IdempotencyKey, Outcome, find_answer, idempotent

_AT_ONCE = 50
"""Made without a break; between two such portions other requests are served."""
_APART = timedelta(microseconds=1)
"""Between two jobs of a batch, as the queue goes by the times of submission."""


async def submit_batch(
    *,
    owner: Identity,
    submissions: Sequence[Submission],
    key: IdempotencyKey | None,
    now: datetime,
    context: Context,
) -> Outcome[AcceptedBatch]:
    """Put jobs in the queue, in their order.

    One that asks for an id of its own, and is there already from an equal request, is answered as it is. Disks that
    were claimed for a batch that is then refused are free again when their provisional claims run out.

    Args:
        owner: Whose jobs they are.
        submissions: Valid, with defaults.
        key: Idempotency key of all of them, None without.
        now: Time of submission of the first.
        context: The service's.

    Raises:
        InvalidInput: One is longer than a job may last, or its disk exists with another size, or two clash.
        Conflict: One asks for an id that is taken, or for a disk that is in use, or is more than its user may have; the
            text names its index.
        Unavailable: The database, or the disks service for a job with a disk.
    """
    if key is not None:
        answer = await find_answer(context.database, key=key, answer_type=AcceptedBatch, cipher=context.cipher, now=now)
        if answer is not None:
            return Outcome(answer, replayed=True)
    _check(submissions, context)
    earlier: dict[int, Accepted] = {}
    new: dict[int, NewJob] = {}
    for index, submission in enumerate(submissions):
        with _naming(index):
            made = await _prepare(owner, submission, now + index * _APART, context)
        if isinstance(made, Accepted):
            earlier[index] = made
        else:
            new[index] = made
        if index % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)

    async def insert(transaction: Transaction) -> AcceptedBatch:
        await check_waiting(transaction, owner.user_id, len(new), context)
        written = await insert_jobs(transaction, [(one, None) for one in new.values()], context.cipher)
        accepted = dict(earlier)
        for index, one in zip(new, written, strict=True):
            with _naming(index):
                if one is None:
                    raise JobIdTaken
            accepted[index] = one
        return AcceptedBatch([accepted[index] for index in range(len(submissions))])

    try:
        return await idempotent(context, insert, key=key, answer_type=AcceptedBatch, now=now, audit=None)
    finally:
        context.outbox.wake()


def _check(submissions: Sequence[Submission], context: Context) -> None:
    problems = clashes(submissions)
    if problems:
        raise InvalidInput(problems)
    for index, submission in enumerate(submissions):
        refusal = size_refusal(submission, context)
        if refusal is not None:
            with _naming(index):
                raise refusal


async def _prepare(owner: Identity, submission: Submission, now: datetime, context: Context) -> NewJob | Accepted:
    mac = request_mac(submission.canonical(), context)
    job_id: UUID = submission.requested_id or uuid4()
    if submission.requested_id is not None:
        earlier = await find_earlier(job_id, owner, mac, context)
        if earlier is not None:
            return earlier
    claim = await claim_disk(job_id, owner, submission, context)
    return new_job(job_id=job_id, owner=owner, submission=submission, claim=claim, mac=mac, now=now, context=context)


@contextmanager
def _naming(index: int) -> Iterator[None]:
    """What goes wrong here is told with the entry's index."""
    try:
        yield
    except InvalidInput as error:
        raise of_entry(error, index) from error
    except Conflict as error:
        raise Conflict(f"Entry {index}: {error.text}") from error
