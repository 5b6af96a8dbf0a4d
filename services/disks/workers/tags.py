"""Brings the Name tags of a disk's volume and snapshots after its name."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

from services.disks.adapters.ec2 import AwsRefused, AwsUnavailable, Ec2
from services.disks.domain.rename import TagReport
from services.disks.domain.retries import poll_after, retry_after
from services.disks.operations.leases import Work
from services.disks.operations.tags import StaleTags, count_tagged, finish_tags, record_tagged, stale_tags
from shared.database import Database

log = structlog.get_logger(__name__)

BATCH = 100
"""Resources of one CreateTags call; EC2 takes up to 1,000 and advises fewer."""
_AT_ONCE = timedelta(0)
_RESTS_SECONDS = (0.2, 0.5, 1.0)
"""Between attempts at one call that AWS throttles."""

NOTHING_REFUSED: Mapping[str, str] = {}


def _had_no_effect(error: BaseException) -> bool:
    return isinstance(error, AwsUnavailable) and not error.may_have_happened


class Tagging:
    def __init__(self, *, database: Database, ec2: Ec2, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._ec2 = ec2
        self._clock = clock

    async def advance(self, work: Work) -> timedelta | None:
        """One pass over everything that is stale; what is refused is tried again, until it holds."""
        stale = await stale_tags(self._database, disk_id=work.disk_id)
        refused: dict[str, str] = {}
        if not await self._tag_all(work, stale, refused):
            return None
        if refused:
            log.warning("tags_refused", disk_id=str(work.disk_id), count=len(refused), first=next(iter(refused)))
            return poll_after(self._clock() - work.created_at)
        return None if await finish_tags(self._database, work=work, now=self._clock()) else _AT_ONCE

    async def report(self, work: Work, *, seconds: float) -> TagReport:
        """Tag as much as can be within `seconds` of real time, throttling included, and say how far that came."""
        deadline, failures, refused, silent = time.monotonic() + seconds, 0, dict[str, str](), False
        while True:
            stale = await stale_tags(self._database, disk_id=work.disk_id)
            silent = False
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._tag_all(work, stale, refused)
            except (AwsUnavailable, TimeoutError):
                failures, silent = failures + 1, True
                rest = retry_after(failures - 1).total_seconds()
                if time.monotonic() + rest < deadline:
                    await asyncio.sleep(rest)
                    continue
            break
        await finish_tags(self._database, work=work, now=self._clock())
        return await self.progress(work.disk_id, refused, silent=silent)

    async def progress(self, disk_id: UUID, refused: Mapping[str, str] = NOTHING_REFUSED, *, silent: bool) -> TagReport:
        """How far the tags of a disk have come.

        Args:
            disk_id: The disk.
            refused: Why AWS did not take a tag, by the id of what it is for, as far as is known.
            silent: AWS did not answer. Else what is neither tagged nor refused is only too young to have been tagged,
                such as a volume that was made meanwhile, and no error.
        """
        total = await count_tagged(self._database, disk_id=disk_id)
        stale = await stale_tags(self._database, disk_id=disk_id)
        snapshots = [aws_id for aws_id in stale.aws_ids if aws_id.startswith("snap-")]
        errors = [f"{aws_id}: {refused[aws_id]}" for aws_id in stale.aws_ids if aws_id in refused]
        waiting = len(stale.aws_ids) - len(errors)
        if waiting and silent:
            errors.append(f"AWS is unavailable: {waiting} tags are updated in the background")
        return TagReport(updated=max(0, total - len(snapshots)), total=total, errors=errors)

    async def _tag_all(self, work: Work, stale: StaleTags, refused: dict[str, str]) -> bool:
        """False: the lease was lost."""
        for start in range(0, len(stale.aws_ids), BATCH):
            if not await self._tag(work, stale.name, stale.aws_ids[start : start + BATCH], refused):
                return False
        return True

    async def _tag(self, work: Work, name: str, aws_ids: Sequence[str], refused: dict[str, str]) -> bool:
        """Tag these; a batch that is refused is halved until the culprits are alone."""
        try:
            await self._set_name(aws_ids, name)
        except AwsRefused as refusal:
            if len(aws_ids) == 1:
                refused[aws_ids[0]] = refusal.reason
                return True
            middle = len(aws_ids) // 2
            return await self._tag(work, name, aws_ids[:middle], refused) and await self._tag(
                work, name, aws_ids[middle:], refused
            )
        for aws_id in aws_ids:
            refused.pop(aws_id, None)
        return await record_tagged(
            self._database, work=work, name=name, aws_ids=aws_ids, volume=work.volume_id in aws_ids
        )

    # were everything begun anew at each throttled call, the halving would not get to what is refused
    @retry(
        retry=retry_if_exception(_had_no_effect),
        wait=wait_chain(*map(wait_fixed, _RESTS_SECONDS)),
        stop=stop_after_attempt(1 + len(_RESTS_SECONDS)),
        reraise=True,
    )
    async def _set_name(self, aws_ids: Sequence[str], name: str) -> None:
        await self._ec2.set_name(aws_ids, name)
