"""Claims at the level of operations: exclusive, idempotent, and none left for ever."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from services.disks.context import Context
from services.disks.domain.claim import JobCannotClaim
from services.disks.domain.disk import Disk
from services.disks.domain.operation import Work
from services.disks.domain.refusals import DiskInUse
from services.disks.operations.claim import claim_disk, confirm_claim, drop_expired_claims, release_claim
from services.disks.operations.create import complete_creation, fail_creation
from services.disks.operations.delete import delete_disk
from services.disks.operations.lease import lease_work
from services.disks.operations.read import get_disk, list_disks, read_disk
from services.disks.operations.rename import record_rename
from services.disks.settings import DisksSettings
from shared.contracts.disks import DiskClaimed, DiskCreated, DiskOperationFailed, DiskReleased
from shared.contracts.events import CloudEvent
from shared.database import Database
from shared.errors import InvalidInput, NotFound
from tests.support.disks import disks_context, events_of, new_claim, new_user_id, now

MINUTE = timedelta(seconds=60)


class Life:
    """One user's disks and jobs, without the service around them."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.database = context.database
        self.user_id = new_user_id()

    async def claim(self, name: str = "data", *, job_id: UUID | None = None, size_gb: int | None = None) -> Disk:
        return await claim_disk(self.context, wanted=new_claim(self.user_id, name, job_id=job_id, size_gb=size_gb))

    async def submitted(self, job_id: UUID, disk: Disk) -> None:
        async with self.database.transaction() as tx:
            await confirm_claim(tx, self.context, job_id=job_id, disk_id=disk.id, now=now())

    async def ended(self, job_id: UUID) -> None:
        async with self.database.transaction() as tx:
            await release_claim(tx, self.context, job_id=job_id, used=False, snapshot_id=uuid4(), now=now())

    async def lease(self) -> Work:
        (work,) = await lease_work(self.database, now=now(), lease_for=MINUTE, limit=8)
        return work

    async def make_volume(self, work: Work) -> None:
        volume_id = f"vol-{work.id.hex[:17]}"
        await complete_creation(self.context, work=work, volume_id=volume_id, availability_zone="z", now=now())

    async def ready_disk(self, name: str = "data") -> Disk:
        maker = uuid4()
        disk = await self.claim(name, job_id=maker)
        leased = await lease_work(self.database, now=now(), lease_for=MINUTE, limit=100)
        await self.make_volume(next(work for work in leased if work.disk_id == disk.id))
        await self.ended(maker)
        return await get_disk(self.database, user_id=self.user_id, name=name)

    async def delete(self, name: str) -> None:
        await delete_disk(self.context, user_id=self.user_id, name=name, operation_id=uuid4(), key=None, now=now())

    async def rename(self, name: str, new_name: str) -> None:
        await record_rename(
            self.context,
            user_id=self.user_id,
            name=name,
            new_name=new_name,
            operation_id=uuid4(),
            key=None,
            now=now(),
        )

    async def holder(self, name: str = "data") -> UUID | None:
        return (await get_disk(self.database, user_id=self.user_id, name=name)).job_id

    async def events(self, disk: Disk) -> list[CloudEvent]:
        recorded = await events_of(self.database, disk.id)
        assert [event.sequence for event in recorded] == list(range(1, len(recorded) + 1))
        return recorded

    async def told(self, disk: Disk, kind: type[Any]) -> list[Any]:
        recorded = await self.events(disk)
        return [msgspec.json.decode(event.data, type=kind) for event in recorded if event.type == kind.type_name()]


@pytest.fixture
def life(disks_settings: DisksSettings, disks_database: Database) -> Life:
    return Life(disks_context(disks_settings, disks_database))


async def test_a_claim_makes_the_disk_that_does_not_exist(life: Life) -> None:
    job = uuid4()

    disk = await life.claim(job_id=job, size_gb=250)

    assert (disk.size_gb, disk.ready, disk.volume_id) == (250, False, None)
    assert await life.holder() == job
    work = await life.lease()
    assert (work.job_id, work.size_gb) == (job, 250)


@pytest.fixture
async def replica(disks_settings: DisksSettings, life: Life) -> AsyncIterator[Life]:
    """The same user's disks and jobs, worked by another replica."""
    database = Database(disks_settings.database_url, pool_size=4)
    other = Life(disks_context(disks_settings, database))
    other.user_id = life.user_id
    yield other
    await database.close()


async def race(chance: random.Random, *rivals: Coroutine[Any, Any, Any]) -> list[Any]:
    """What each made of it; they start in any order, some instants apart."""

    async def run(rival: Coroutine[Any, Any, Any], instants: int) -> Any:
        for _ in range(instants):
            await asyncio.sleep(0)
        return await rival

    return await asyncio.gather(*(run(rival, chance.randrange(40)) for rival in rivals), return_exceptions=True)


async def test_five_hundred_races_of_two_jobs_on_two_replicas_for_one_disk_have_one_winner_each(
    life: Life, replica: Life
) -> None:
    """Incident 25: one job has the disk, the other is told which one has it."""
    for seed in range(500):
        chance = random.Random(seed)
        # a disk that is there already, or one that the claim itself makes
        name = f"data-{seed}" if chance.random() < 0.5 else "data-old"
        jobs = [uuid4() for _ in range(2)]

        results = await race(chance, life.claim(name, job_id=jobs[0]), replica.claim(name, job_id=jobs[1]))

        winner = await life.holder(name)
        assert winner in jobs
        for job, result in zip(jobs, results, strict=True):
            if job == winner:
                assert isinstance(result, Disk), seed
            else:
                assert isinstance(result, DiskInUse), (seed, result)
                assert str(winner) in result.text
        await life.ended(winner)
    listed = await list_disks(life.database, user_id=life.user_id, include_deleted=True, limit=500, offset=0)
    assert len({disk.name for disk in listed.disks}) == listed.total


@pytest.mark.parametrize("rival", ["delete", "rename"])
async def test_a_disk_that_is_claimed_is_not_taken_away_in_the_same_instant(
    life: Life, replica: Life, rival: str
) -> None:
    """Incident 25, against what else may happen to a disk: the job has this one, or one of its own."""
    outcomes = set()
    for seed in range(100):
        chance = random.Random(seed)
        name, job = f"data-{seed}", uuid4()
        disk = await life.ready_disk(name)
        taking_away = replica.delete(name) if rival == "delete" else replica.rename(name, f"other-{seed}")

        claimed, taken_away = await race(chance, life.claim(name, job_id=job), taking_away)

        assert isinstance(claimed, Disk), (seed, claimed)
        assert await life.holder(name) == job
        kept = claimed.id == disk.id
        assert isinstance(taken_away, DiskInUse) == kept, (seed, taken_away)
        old = await read_disk(life.database, disk.id)
        assert (old.job_id, old.deleted_at is None and old.name == name) == ((job, True) if kept else (None, False))
        outcomes.add(kept)
    assert outcomes == {True, False}, "the instants are not the same"


async def test_a_disk_is_had_by_the_next_job_only_when_the_last_has_ended(life: Life, replica: Life) -> None:
    outcomes = set()
    await life.ready_disk()
    last = uuid4()
    await life.claim(job_id=last)
    for seed in range(100):
        job = uuid4()

        _, claimed = await race(random.Random(seed), life.ended(last), replica.claim(job_id=job))

        if isinstance(claimed, DiskInUse):
            assert str(last) in claimed.text
            assert await life.holder() is None
            await life.claim(job_id=job)
        assert await life.holder() == job
        outcomes.add(isinstance(claimed, Disk))
        last = job
    assert outcomes == {True, False}, "the instants are not the same"


async def test_a_repeated_claim_gets_the_same_answer(life: Life) -> None:
    job = uuid4()
    first = await life.claim(job_id=job, size_gb=50)
    again = await life.claim(job_id=job, size_gb=50)
    await life.submitted(job, first)
    confirmed = await life.claim(job_id=job, size_gb=50)

    assert first.id == again.id == confirmed.id
    with pytest.raises(DiskInUse):
        await life.claim()


async def test_two_users_disks_of_one_name_are_two_disks(life: Life) -> None:
    other = Life(life.context)

    mine, theirs = await life.claim(), await other.claim()

    assert mine.id != theirs.id


async def test_another_users_job_id_claims_nothing_and_leaves_nothing(life: Life) -> None:
    other, job = Life(life.context), uuid4()
    await life.claim(job_id=job)

    with pytest.raises(JobCannotClaim) as refused:
        await other.claim(job_id=job)

    assert str(life.user_id) not in refused.value.text
    with pytest.raises(NotFound):
        await get_disk(life.database, user_id=other.user_id, name="data")
    assert await life.holder() == job


async def test_an_old_disk_of_another_size_is_refused(life: Life) -> None:
    disk = await life.ready_disk()

    with pytest.raises(InvalidInput, match=f"{disk.size_gb} GB"):
        await life.claim(size_gb=disk.size_gb + 1)

    assert await life.holder() is None
    assert (await life.claim(size_gb=disk.size_gb)).ready


async def test_a_job_is_told_once_when_the_volume_comes_last(life: Life) -> None:
    job = uuid4()
    disk = await life.claim(job_id=job)
    await life.submitted(job, disk)
    assert await life.events(disk) == []

    await life.make_volume(await life.lease())
    await life.submitted(job, disk)

    (told,) = await life.told(disk, DiskClaimed)
    assert (told.job_id, told.availability_zone) == (job, "z")
    assert [event.type for event in await life.events(disk)] == [DiskCreated.type_name(), DiskClaimed.type_name()]


async def test_a_job_is_told_once_when_its_submission_comes_last(life: Life) -> None:
    disk, job = await life.ready_disk(), uuid4()
    await life.claim(job_id=job)
    assert await life.told(disk, DiskClaimed) == []

    await life.submitted(job, disk)
    await life.submitted(job, disk)

    assert [told.job_id for told in await life.told(disk, DiskClaimed)] == [job]


async def test_a_job_is_told_once_when_both_come_at_once(life: Life) -> None:
    for number in range(20):
        job = uuid4()
        disk = await life.claim(f"data-{number}", job_id=job)
        work = await life.lease()

        await asyncio.gather(life.submitted(job, disk), life.make_volume(work))

        assert [told.job_id for told in await life.told(disk, DiskClaimed)] == [job]


async def test_the_end_of_a_job_frees_its_disk(life: Life) -> None:
    job = uuid4()
    disk = await life.claim(job_id=job)
    await life.submitted(job, disk)

    await life.ended(job)
    await life.ended(job)

    freed = await get_disk(life.database, user_id=life.user_id, name="data")
    assert freed.job_id is None
    (told,) = await life.told(disk, DiskReleased)
    assert told.job_id == job
    assert told.released_at == freed.last_used
    with pytest.raises(JobCannotClaim):
        await life.claim(job_id=job)
    await life.claim()


async def test_a_submission_after_the_end_does_not_bring_the_claim_back(life: Life) -> None:
    for dropped in (False, True):
        job = uuid4()
        disk = await life.claim(job_id=job)
        if dropped:
            await drop_expired_claims(life.database, now=now() + 2 * MINUTE)

        await life.ended(job)
        await life.submitted(job, disk)

        assert await life.holder() is None
        assert await life.told(disk, DiskOperationFailed) == []


async def test_a_claim_without_its_job_is_dropped_after_its_time_and_not_before(life: Life) -> None:
    job, started = uuid4(), now()
    await life.claim(job_id=job)
    claimed = now()
    confirmed_job = uuid4()
    confirmed = await life.claim("other", job_id=confirmed_job)
    await life.submitted(confirmed_job, confirmed)

    await drop_expired_claims(life.database, now=started + timedelta(seconds=59))
    assert await life.holder() == job
    await drop_expired_claims(life.database, now=claimed + MINUTE)

    assert await life.holder() is None
    assert await life.holder("other") == confirmed_job


async def test_a_late_submission_takes_a_free_disk_again(life: Life) -> None:
    disk, job = await life.ready_disk(), uuid4()
    await life.claim(job_id=job)
    await drop_expired_claims(life.database, now=now() + 2 * MINUTE)

    await life.submitted(job, disk)

    assert await life.holder() == job
    assert [told.job_id for told in await life.told(disk, DiskClaimed)] == [job]


async def test_a_late_submission_whose_disk_is_taken_is_told_so(life: Life) -> None:
    disk, late, quick = await life.ready_disk(), uuid4(), uuid4()
    await life.claim(job_id=late)
    await drop_expired_claims(life.database, now=now() + 2 * MINUTE)
    await life.claim(job_id=quick)

    await life.submitted(late, disk)

    assert await life.holder() == quick
    (told,) = await life.told(disk, DiskOperationFailed)
    assert (told.job_id, told.action, told.operation_id) == (late, "claim", None)
    assert str(quick) in told.error


async def test_a_late_submission_whose_disk_was_deleted_is_told_so(life: Life) -> None:
    disk, late = await life.ready_disk(), uuid4()
    await life.claim(job_id=late)
    await drop_expired_claims(life.database, now=now() + 2 * MINUTE)
    await life.delete("data")

    await life.submitted(late, disk)

    assert await life.holder() is None
    (told,) = await life.told(disk, DiskOperationFailed)
    assert (told.job_id, told.error) == (late, "Disk 'data' was deleted before the job was submitted")


@pytest.mark.parametrize("submitted_first", [True, False])
async def test_a_job_whose_disk_cannot_be_made_is_told_so(life: Life, submitted_first: bool) -> None:
    job = uuid4()
    disk = await life.claim(job_id=job)
    work = await life.lease()
    if submitted_first:
        await life.submitted(job, disk)

    await fail_creation(life.context, work=work, error="no more disks", now=now())
    if not submitted_first:
        await life.submitted(job, disk)

    told = await life.told(disk, DiskOperationFailed)
    assert {event.job_id for event in told} == {job}
    assert told[0].error == "no more disks"
    assert (await life.claim()).id != disk.id


async def test_a_job_that_names_another_disk_before_its_submission_gives_up_the_first(life: Life) -> None:
    job = uuid4()
    await life.claim("first", job_id=job)
    second = await life.claim("second", job_id=job)

    assert await life.holder("first") is None
    assert await life.holder("second") == job
    await life.submitted(job, second)
    with pytest.raises(JobCannotClaim):
        await life.claim("first", job_id=job)
