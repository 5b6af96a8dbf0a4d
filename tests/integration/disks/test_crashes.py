"""A worker dies at any instant of a creation: one volume, one disk, one event, whatever happens next."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from services.disks.adapters.ec2 import AwsUnavailable, Ec2
from services.disks.app import PASSES
from services.disks.context import Context
from services.disks.domain.aws_objects import AwsVolume, VolumeOrder
from services.disks.domain.disk import NewDisk
from services.disks.domain.operation import OperationStatus, Work
from services.disks.operations.create import complete_creation, create_disk, fail_creation
from services.disks.operations.lease import lease_work
from services.disks.operations.purge import forget_history
from services.disks.operations.read import get_disk, get_operation
from services.disks.settings import DisksSettings
from services.disks.storage.tables import operations
from services.disks.workers import creations as creation_module
from services.disks.workers.open_operations import operations_worker
from shared import leased_worker
from shared.contracts.disks import DiskCreated
from shared.database import Database, Statement
from shared.errors import DatabaseUnavailable, NotFound
from shared.leased_worker import LeasedWorker
from tests.support.crash import Crash
from tests.support.disks import disks_context, events_of, new_disk, new_user_id, volumes_of
from tests.support.harness import eventually
from tests.support.servers import MotoServer

WORKED_UNTIL = Statement(sa.select(operations.c.worked_until).where(operations.c.id == sa.bindparam("id")))


class Ec2ThatFailsOnce(Ec2):
    """Dies, or loses an answer, once, around the call that makes the volume."""

    def __init__(self, settings: DisksSettings, *, before: BaseException | None, after: BaseException | None) -> None:
        super().__init__(region=settings.aws_region, endpoint_url=settings.aws_endpoint_url)
        self._before = before
        self._after = after
        self.asked = 0

    async def create_volume(self, order: VolumeOrder) -> AwsVolume:
        self.asked += 1
        before, self._before = self._before, None
        if before is not None:
            raise before
        volume = await super().create_volume(order)
        after, self._after = self._after, None
        if after is not None:
            raise after
        return volume


class Clock:
    """Time that only tests move."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Scene:
    """One user's disk that is to be made, and the workers on it."""

    def __init__(self, settings: DisksSettings, database: Database, cloud: Any) -> None:
        self.settings = settings
        self.database = database
        self.cloud = cloud
        self.clock = Clock()
        self.new: NewDisk = new_disk(new_user_id(), at=self.clock())

    async def request(self) -> None:
        await create_disk(self.context(), new=self.new, key=None)

    def context(self, ec2: Ec2 | None = None) -> Context:
        return disks_context(self.settings, self.database, ec2=ec2, clock=self.clock)

    def worker(self, ec2: Ec2) -> LeasedWorker[Work, timedelta | None]:
        return operations_worker(self.context(ec2), PASSES)

    async def status(self) -> OperationStatus:
        operation = await get_operation(
            self.database, user_id=self.new.user_id, name=self.new.name, operation_id=str(self.new.operation_id)
        )
        return operation.status

    async def renewed(self) -> None:
        """Return once the lease reaches as far from now as a lease can."""

        async def far() -> bool:
            until: datetime = await self.database.fetch_value(WORKED_UNTIL, id=self.new.operation_id)
            return until > self.clock() + timedelta(seconds=6)

        await eventually(far, "the lease is renewed")

    async def work_until_done(self, ec2: Ec2) -> None:
        worker = self.worker(ec2)
        for _ in range(20):
            self.clock.pass_time(60)
            await worker.work_due()
            if (await self.status()).ended:
                return
        pytest.fail("the operation does not end")

    async def assert_made_once(self) -> None:
        (volume,) = await volumes_of(self.cloud, self.new.user_id)
        disk = await get_disk(self.database, user_id=self.new.user_id, name=self.new.name)
        assert await self.status() is OperationStatus.COMPLETED
        assert disk.volume_id == volume["VolumeId"]
        assert [event.type for event in await events_of(self.database, disk.id)] == [DiskCreated.type_name()]


@pytest.fixture
async def scene(disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer) -> Scene:
    made = Scene(disks_settings, disks_database, moto_server.client("ec2"))
    await made.request()
    return made


@pytest.mark.parametrize("point", ["before_call", "after_call"])
async def test_a_death_around_the_call_leaves_one_volume(scene: Scene, ec2: Ec2, point: str) -> None:
    """Incident 4."""
    dying = Ec2ThatFailsOnce(
        scene.settings,
        before=Crash() if point == "before_call" else None,
        after=Crash() if point == "after_call" else None,
    )
    with pytest.raises(Crash):
        await scene.worker(dying).work_due()
    await dying.close()

    await scene.work_until_done(ec2)

    await scene.assert_made_once()


async def test_a_death_before_the_commit_leaves_one_volume(
    scene: Scene, ec2: Ec2, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: Any, **__: Any) -> bool:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(creation_module, "complete_creation", die)
        with pytest.raises(Crash):
            await scene.work_until_done(ec2)

    await scene.work_until_done(ec2)

    await scene.assert_made_once()


async def test_a_commit_whose_answer_is_lost_is_not_repeated(
    scene: Scene, ec2: Ec2, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = 0

    async def complete_and_die(*args: Any, **named: Any) -> bool:
        nonlocal lost
        await complete_creation(*args, **named)
        lost += 1
        raise DatabaseUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(creation_module, "complete_creation", complete_and_die)
        await scene.work_until_done(ec2)
    assert lost == 1

    scene.clock.pass_time(60)
    await scene.worker(ec2).work_due()

    await scene.assert_made_once()


async def test_an_answer_that_is_lost_is_found_by_its_tag_not_asked_for_again(scene: Scene) -> None:
    ec2 = Ec2ThatFailsOnce(scene.settings, before=None, after=AwsUnavailable())

    await scene.work_until_done(ec2)
    await ec2.close()

    assert ec2.asked == 1
    await scene.assert_made_once()


async def test_aws_restarts_between_the_volume_and_its_record(scene: Scene, ec2: Ec2, moto_server: MotoServer) -> None:
    dying = Ec2ThatFailsOnce(scene.settings, before=None, after=Crash())
    with pytest.raises(Crash):
        await scene.worker(dying).work_due()
    await dying.close()
    moto_server.process.kill()
    scene.clock.pass_time(60)
    await scene.worker(ec2).work_due()
    assert not (await scene.status()).ended
    moto_server.process.start()

    await scene.work_until_done(ec2)

    await scene.assert_made_once()


async def test_two_replicas_make_one_volume(scene: Scene, ec2: Ec2) -> None:
    replicas = [scene.worker(ec2), scene.worker(ec2)]

    for _ in range(10):
        scene.clock.pass_time(60)
        await asyncio.gather(*(replica.work_due() for replica in replicas))
        if (await scene.status()).ended:
            break

    await scene.assert_made_once()


async def test_a_lease_is_held_by_one_worker_until_it_is_over(scene: Scene) -> None:
    def lease() -> Any:
        return lease_work(scene.database, now=scene.clock(), lease_for=timedelta(seconds=45), limit=8)

    first, second = await asyncio.gather(lease(), lease())
    scene.clock.pass_time(44)
    during = await lease()
    scene.clock.pass_time(2)
    after = await lease()

    assert sorted([len(first), len(second)]) == [0, 1]
    assert during == []
    assert [work.lease for work in after] == [2]


async def test_what_a_stale_worker_brings_back_is_dropped(scene: Scene, ec2: Ec2) -> None:
    (stale,) = await lease_work(scene.database, now=scene.clock(), lease_for=timedelta(seconds=45), limit=8)
    scene.clock.pass_time(60)
    await lease_work(scene.database, now=scene.clock(), lease_for=timedelta(seconds=45), limit=8)

    failed = await fail_creation(scene.context(), work=stale, error="old news", now=scene.clock())
    completed = await complete_creation(
        scene.context(), work=stale, volume_id="vol-stale", availability_zone="z", now=scene.clock()
    )

    assert not failed
    assert not completed
    await scene.work_until_done(ec2)
    await scene.assert_made_once()


async def test_a_row_that_always_fails_does_not_stop_the_others(scene: Scene, ec2: Ec2) -> None:
    bad = scene.new.operation_id
    other = Scene(scene.settings, scene.database, scene.cloud)
    await other.request()

    class Picky(Ec2):
        async def create_volume(self, order: VolumeOrder) -> AwsVolume:
            if order.operation_id == bad:
                raise ValueError("a fault of ours")
            return await ec2.create_volume(order)

    picky = Picky(region=scene.settings.aws_region, endpoint_url=scene.settings.aws_endpoint_url)
    other.clock = scene.clock
    await other.work_until_done(picky)
    await picky.close()

    await other.assert_made_once()
    assert not (await scene.status()).ended
    await scene.work_until_done(ec2)


async def test_a_volume_in_error_fails_the_operation_and_is_deleted(scene: Scene) -> None:
    class Broken(Ec2):
        async def create_volume(self, order: VolumeOrder) -> AwsVolume:
            volume = await super().create_volume(order)
            return msgspec.structs.replace(volume, state="error")

    broken = Broken(region=scene.settings.aws_region, endpoint_url=scene.settings.aws_endpoint_url)
    await scene.work_until_done(broken)
    await broken.close()

    assert await scene.status() is OperationStatus.FAILED
    assert await volumes_of(scene.cloud, scene.new.user_id) == []


async def test_a_slow_aws_does_not_cost_a_living_worker_its_lease(
    scene: Scene, ec2: Ec2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leased_worker, "_RENEWALS", 800)
    answered = asyncio.Event()

    class Slow(Ec2):
        async def create_volume(self, order: VolumeOrder) -> AwsVolume:
            await answered.wait()
            return await ec2.create_volume(order)

    slow = Slow(region=scene.settings.aws_region, endpoint_url=scene.settings.aws_endpoint_url)
    working = asyncio.create_task(scene.worker(slow).work_due())
    try:
        for _ in range(5):
            await scene.renewed()
            scene.clock.pass_time(5)
        await scene.renewed()
        stolen = await lease_work(scene.database, now=scene.clock(), lease_for=timedelta(seconds=8), limit=8)
    finally:
        answered.set()
        await working
    await slow.close()

    assert stolen == []
    await scene.work_until_done(ec2)
    await scene.assert_made_once()


async def test_history_is_kept_for_90_days_and_what_is_open_for_ever(scene: Scene, ec2: Ec2) -> None:
    made_at = scene.clock()
    await forget_history(scene.database, before=made_at + timedelta(days=1))
    assert await scene.status() is OperationStatus.QUEUED
    await scene.work_until_done(ec2)

    await forget_history(scene.database, before=made_at)
    assert await scene.status() is OperationStatus.COMPLETED
    await forget_history(scene.database, before=scene.clock() + timedelta(seconds=1))

    with pytest.raises(NotFound):
        await scene.status()
    await get_disk(scene.database, user_id=scene.new.user_id, name=scene.new.name)


async def test_a_volume_that_is_not_to_be_seen_yet_is_not_made_twice(scene: Scene) -> None:
    class Nearsighted(Ec2ThatFailsOnce):
        async def find_volume(self, order: VolumeOrder) -> AwsVolume | None:
            del order
            return None

    nearsighted = Nearsighted(scene.settings, before=None, after=Crash())
    with pytest.raises(Crash):
        await scene.worker(nearsighted).work_due()

    await scene.work_until_done(nearsighted)
    await nearsighted.close()

    assert nearsighted.asked == 2
    await scene.assert_made_once()


async def test_a_disk_is_not_ready_before_its_volume_is(scene: Scene, ec2: Ec2) -> None:
    class Unhurried(Ec2):
        async def create_volume(self, order: VolumeOrder) -> AwsVolume:
            volume = await super().create_volume(order)
            return msgspec.structs.replace(volume, state="creating")

    unhurried = Unhurried(region=scene.settings.aws_region, endpoint_url=scene.settings.aws_endpoint_url)
    await scene.worker(unhurried).work_due()
    await unhurried.close()

    assert await scene.status() is OperationStatus.RUNNING
    disk = await get_disk(scene.database, user_id=scene.new.user_id, name=scene.new.name)
    assert (disk.ready, disk.volume_id) == (False, None)
    scene.clock.pass_time(0.5)
    await scene.worker(ec2).work_due()
    await scene.assert_made_once()
