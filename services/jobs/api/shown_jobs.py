"""Jobs as their owners read them: encoded once for each of their versions, and kept.

Every answer asks the database which jobs there are and at which versions; only what those hold may come from memory. So
a replica never answers with what another has changed since.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

import msgspec

from services.jobs.context import Context
from services.jobs.domain.job_id import IdRange
from services.jobs.domain.job_list import JobQuery, JobVersion, VersionPage
from services.jobs.operations.read import (
    ShownJob,
    find_shown_jobs,
    find_version,
    find_versions,
    get_shown_job,
    list_versions,
    shown_jupyter_token,
)
from services.jobs.schemas.answers import JobList, job_answer
from shared.database import Executor
from shared.database.group_read import GroupRead
from shared.web.conditional import Encoded, digest, encoded

_KEPT_BYTES = 32 << 20
_ENTRY_BYTES = 400
"""What an entry takes beside its body, about."""


class _Entry(msgspec.Struct, frozen=True, gc=False):
    version: bytes
    answer: Encoded
    good_until: float
    """Seconds since the epoch from which on it says something else."""

    @property
    def size(self) -> int:
        return len(self.answer.body) + _ENTRY_BYTES


class ShownJobs:
    """What the routes that read jobs answer.

    Args:
        context: The service's.
        kept_bytes: Of answers that are kept, about; those that were made longest ago go first.
    """

    def __init__(self, context: Context, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self._context = context
        self._room = kept_bytes
        self._kept: dict[bytes, _Entry] = {}
        self._versions = GroupRead(partial(find_versions, context=context))

    async def one(self, *, user_id: int, ids: IdRange) -> Encoded:
        """One's own job; raises as `get_job`."""
        version = await self._version(user_id, ids)
        known = None if version is None else self._known(version)
        return known or self._learn(await get_shown_job(user_id=user_id, ids=ids, context=self._context))

    async def _version(self, user_id: int, ids: IdRange) -> JobVersion | None:
        """The present one of a job; None where that is no use: of one that was not read before all is read at once."""
        first_id, last_id = ids
        if first_id != last_id:
            return await find_version(user_id=user_id, ids=ids, context=self._context)
        if first_id.bytes not in self._kept:
            return None
        key = (user_id, first_id)
        return (await self._versions.read(key)).get(key)

    async def page(self, *, user_id: int, query: JobQuery) -> Encoded:
        """A page of one's own jobs."""
        database = self._context.database
        page = await list_versions(user_id=user_id, query=query, executor=database)
        answers = await self._answers(page, database)
        if answers is None:
            # a job has changed between the two statements
            async with database.snapshot() as snapshot:
                page = await list_versions(user_id=user_id, query=query, executor=snapshot)
                answers = await self._answers(page, snapshot)
        return _page_of(answers or [], page.total, query)

    async def _answers(self, page: VersionPage, executor: Executor) -> list[Encoded] | None:
        """Those of a page's versions; None when one of them is no more to be had."""
        answers = [self._known(version) for version in page.versions]
        missing = [version for version, answer in zip(page.versions, answers, strict=True) if answer is None]
        if missing:
            found = await find_shown_jobs(job_ids=[version.job_id for version in missing], executor=executor)
            made = {shown.version.key: self._learn(shown) for shown in found}
            pairs = zip(page.versions, answers, strict=True)
            answers = [answer or made.get(version.key) for version, answer in pairs]
        return None if None in answers else cast("list[Encoded]", answers)

    def _known(self, version: JobVersion) -> Encoded | None:
        entry = self._kept.get(version.of)
        if entry is None or entry.version != version.key or entry.good_until <= self._context.clock().timestamp():
            return None
        return entry.answer

    def _learn(self, shown: ShownJob) -> Encoded:
        now = self._context.clock()
        token = shown_jupyter_token(shown.job, self._context)
        answer = encoded(job_answer(shown.job, now, self._context.settings, token))
        if shown.lasts:
            until = _changes_at(shown.job.estimated_start_at, now)
            self._keep(shown.version.of, _Entry(shown.version.key, answer, until))
        return answer

    def _keep(self, job: bytes, entry: _Entry) -> None:
        before = self._kept.pop(job, None)
        self._room += before.size if before is not None else 0
        self._kept[job] = entry
        self._room -= entry.size
        while self._room < 0:
            self._room += self._kept.pop(next(iter(self._kept))).size


def _changes_at(estimated_start_at: datetime | None, now: datetime) -> float:
    """When the minutes until then, rounded up, become one less; infinite when they do not."""
    if estimated_start_at is None or estimated_start_at <= now:
        return math.inf
    minutes = math.ceil((estimated_start_at - now).total_seconds() / 60)
    return (estimated_start_at - timedelta(minutes=minutes - 1)).timestamp()


def _page_of(jobs: Sequence[Encoded], total: int, query: JobQuery) -> Encoded:
    bodies: Any = [msgspec.Raw(job.body) for job in jobs]
    body = msgspec.json.encode(JobList(jobs=bodies, total=total, limit=query.limit, offset=query.offset))
    known_by = digest(f"{total} {query.limit} {query.offset} ".encode(), *(job.tag.encode() for job in jobs))
    return Encoded(body, f'"{known_by}"')
