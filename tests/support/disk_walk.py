"""A random walk over everything that can happen to disks, each step compared with the model.

The service's own operations and workers run on real servers; its clock is the walk's. Requests are made again under
their idempotency key when the process dies, as a client does; jobs' news are delivered again.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import sqlalchemy as sa

from services.disks.domain.aws import TAG_DISK, TAG_NAME, TAG_OPERATION, TAG_USER
from services.disks.domain.changes import Limits
from services.disks.domain.claim import ClaimWish
from services.disks.domain.disk import Disk, NewDisk, OperationStatus
from services.disks.domain.snapshot import Retention, SnapshotState
from services.disks.ebs import AwsUnavailable
from services.disks.operations.claims import claim_disk, confirm_claim, drop_expired_claims, release_claim
from services.disks.operations.contents import store_content
from services.disks.operations.disks import create_disk, delete_disk, restore_disk
from services.disks.operations.purges import begin_purges, forget_history
from services.disks.operations.snapshots import prune_crowded, request_snapshot
from services.disks.queries import get_content, get_operation, list_disks, list_snapshots
from services.disks.reconciler.loop import Reconciler
from services.disks.reconciler.renaming import Renaming
from services.disks.reconciler.sweeper import Sweeper
from services.disks.settings import DisksSettings
from services.disks.storage.tables import disks, operations, snapshots
from services.disks.storage.words import still_open, word
from shared.contracts.disks import ContentReport, Listing
from shared.database import Database, Statement
from shared.database.tables import outbox
from shared.encryption import Cipher
from shared.errors import GpuDevError, InvalidInput, NotFound
from shared.idempotency import IdempotencyKey
from tests.support.aws_proxy import BadDays
from tests.support.disk_model import DiskModel, ModelDisk, ModelJob, Point, Refusal
from tests.support.disks import Silent, new_user_id, snapshots_of_user, volumes_of
from tests.support.ground import eventually
from tests.support.mortal import Killed, Process

AnswerT = TypeVar("AnswerT")
EffectT = TypeVar("EffectT")

NAMES = ("data", "model", "new-1", "new_2")
SIZES = (None, None, 10, 50, 100, 250)
LIMITS = Limits(disks=4, gb=600)
RETENTION = Retention(newest=2, weeks=3)
KEEP_DELETED = timedelta(days=30)
PROVISIONAL = timedelta(seconds=60)
HISTORY = timedelta(days=90)
DEATHS = 0.12
"""Share of the calls whose process dies within the next few instants."""

_ended = operations.c.status.in_([word(OperationStatus.COMPLETED), word(OperationStatus.FAILED)])
_shown = snapshots.c.status.not_in([word(SnapshotState.DELETING), word(SnapshotState.DELETED)])
_IDS = sa.bindparam("ids", type_=sa.ARRAY(sa.Uuid))
_OUTCOMES = Statement(
    sa.select(operations.c.id, operations.c.status, operations.c.error, operations.c.updated_at)
    .where(operations.c.id == sa.any_(_IDS), _ended)
    .order_by(operations.c.updated_at)
)
_GONE = Statement(sa.select(snapshots.c.id).where(sa.not_(_shown)))
_PURGED = Statement(sa.select(disks.c.id).where(disks.c.id == sa.any_(_IDS), disks.c.state == "purged"))
_OPEN = Statement(sa.select(sa.func.count()).select_from(operations).where(still_open))
_KEPT = Statement(
    sa.select(snapshots.c.id, snapshots.c.snapshot_id, snapshots.c.disk_id).where(snapshots.c.status == "completed")
)
_OPERATIONS = Statement(sa.select(operations.c.id))
_DISKS = Statement(sa.select(disks.c.id))
_VERSIONS = Statement(sa.select(outbox.c.entity_id, outbox.c.entity_version).order_by(outbox.c.entity_version))


class Diverged(AssertionError):
    """The service and the model differ."""


class Walk:
    """One walk.

    Args:
        settings: Whose AWS is behind the trouble.
        database: Empty; the walk looks into it.
        cloud: AWS without trouble.
        trouble: Between the service and AWS.
        seed: Of all that happens.
    """

    def __init__(self, settings: DisksSettings, database: Database, cloud: Any, trouble: BadDays, seed: int) -> None:
        self._settings = settings
        self._database = database
        self._cloud = cloud
        self._trouble = trouble
        self._chance = random.Random(seed)
        self._cipher = Cipher(settings.secret_keys)
        self._process: Process | None = None
        self._now = datetime(2030, 1, 1, tzinfo=UTC)
        self._users = (new_user_id(), new_user_id())
        self._making: dict[UUID, ModelDisk] = {}
        self._taking: dict[UUID, Point] = {}
        self._requests: list[tuple[UUID, str, ModelDisk]] = []
        self._foreign: dict[str, set[str]] = {"volume": set(), "snapshot": set()}
        self.model = DiskModel(LIMITS, RETENTION, KEEP_DELETED, PROVISIONAL)
        self.tally: Counter[str] = Counter()
        """What was done, with the answer."""
        self.trail: list[str] = []
        """The same, step by step."""

    def clock(self) -> datetime:
        """The time; never the same twice."""
        self._now += timedelta(milliseconds=1)
        return self._now

    # the walk

    async def run(self, steps: int) -> None:
        """Go so many steps, then let all work end and compare everything with AWS.

        Raises:
            Diverged: With the steps that led there.
        """
        acts: dict[Callable[[], Awaitable[None]], int] = {
            self._create: 8, self._delete: 5, self._restore: 4, self._rename: 6, self._snapshot: 8,
            self._claim: 10, self._submitted: 8, self._ended: 9, self._tell_content: 4, self._work: 24,
            self._let_time_pass: 10, self._keep_house: 6, self._sweep: 3, self._change_weather: 3,
            self._plant_foreign: 1,
        }  # fmt: skip
        try:
            for _ in range(steps):
                (act,) = self._chance.choices(list(acts), list(acts.values()))
                await self._compared(act)
            await self._compared(self._settle)
        finally:
            await self._end_process()

    async def _compared(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
            await self._compare()
        except (AssertionError, GpuDevError) as error:
            told = "\n".join(self.trail[-60:])
            raise Diverged(f"after {len(self.trail)} steps, the last of them:\n{told}\n{error}") from error

    def _note(self, act: str, outcome: str, *details: object) -> None:
        self.tally[f"{act}: {outcome}"] += 1
        self.trail.append(f"{self._now:%Y-%m-%d %H:%M:%S} {act} {' '.join(map(str, details))}: {outcome}")

    # processes, which die

    @asynccontextmanager
    async def _mortal(self) -> AsyncIterator[Process]:
        """A process for one act: the same as before, unless that is over or this one is to die."""
        doomed = self._chance.random() < DEATHS
        if doomed:
            await self._end_process()
        if self._process is None:
            self._process = Process(self._settings, self._chance.randrange(12) if doomed else None)
        try:
            yield self._process
        finally:
            if self._process.fuse.burnt:
                fuse = self._process.fuse
                await eventually(lambda: not fuse.under_way, "what the dead had sent off is over", seconds=60)
            if doomed:
                await self._end_process()

    async def _end_process(self) -> None:
        if self._process is not None:
            await self._process.close()
        self._process = None

    async def _survive(self, act: Callable[[Process], Awaitable[AnswerT]], *, rest: timedelta | None = None) -> AnswerT:
        """The answer, of the next process if need be; `rest` passes before that is asked."""
        while True:
            try:
                async with self._mortal() as process:
                    return await act(process)
            except Killed:
                self.tally["death"] += 1
                self.trail.append("    death")
                self._now += rest or timedelta(0)

    async def _ask(
        self, what: str, expect: Callable[[], EffectT], ask: Callable[[Process], Awaitable[AnswerT]],
        *details: object, rest: timedelta | None = None,
    ) -> tuple[EffectT, AnswerT] | None:  # fmt: skip
        """The effect in the model and the answer; None when both refuse.

        Args:
            what: Is asked.
            expect: Has it in the model.
            ask: Has it from a process; again after its death.
            details: For the trail.
            rest: Passes before it is asked again.
        """
        refused, effect = _tried(expect)
        error, answer = None, None
        try:
            answer = await self._survive(ask, rest=rest)
        except GpuDevError as raised:
            error = raised
        self._note(what, "done" if error is None else str(error.kind.value), *details)
        if error is None or refused is None:
            assert error is refused is None, f"{what}: answered {error!r}, expected {refused!r}"
            return effect, answer  # type: ignore[return-value]
        text = error.problems[0].msg if isinstance(error, InvalidInput) else error.text
        assert error.kind.value == refused.status, f"{what}: {error.kind.value} {text}, expected {refused}"
        assert refused.words in text, f"{what}: {text!r} does not say {refused.words!r}"
        return None

    # requests

    async def _create(self) -> None:
        user, name, size = self._user(), self._name(), self._chance.choice(SIZES)
        source = self._any_point() if self._chance.random() < 0.4 else None
        now, new_id, operation_id, key = self.clock(), self._id(), self._id(), self._key(user)
        new = NewDisk(
            disk_id=new_id, operation_id=operation_id, user_id=user, username="u", name=name, size_gb=size or 100,
            availability_zone=self._settings.availability_zone, requested_at=now,
        )  # fmt: skip
        done = await self._ask(
            "create" if source is None else "create from",
            lambda: self.model.create(user, name, disk_id=new_id, size_gb=size, source=source, now=now),
            lambda process: create_disk(
                process.database, Silent(), new=new, limits=LIMITS, key=key, cipher=self._cipher,
                from_snapshot=None if source is None else str(source), size_given=size is not None,
            ),
            user, name, size, source,
        )  # fmt: skip
        if done:
            self._making[operation_id] = done[0]
            self._requests.append((operation_id, name, done[0]))

    async def _delete(self) -> None:
        user, name = self._user(), self._name()
        now, operation_id, key = self.clock(), self._id(), self._key(user)
        done = await self._ask(
            "delete",
            lambda: self.model.delete(user, name, now=now),
            lambda process: delete_disk(
                process.database, Silent(), user_id=user, name=name, operation_id=operation_id, retention=KEEP_DELETED,
                key=key, cipher=self._cipher, now=now,
            ),
            user, name,
        )  # fmt: skip
        if done:
            disk, outcome = done
            assert disk.purge_at is not None
            assert outcome.answer.delete_date == disk.purge_at.date()
            self._requests.append((operation_id, name, disk))

    async def _restore(self) -> None:
        user, name = self._user(), self._name()
        now, operation_id, key = self.clock(), self._id(), self._key(user)
        done = await self._ask(
            "restore",
            lambda: self.model.restore(user, name, now=now),
            lambda process: restore_disk(
                process.database, Silent(), user_id=user, name=name, operation_id=operation_id, limits=LIMITS, key=key,
                cipher=self._cipher, now=now,
            ),
            user, name,
        )  # fmt: skip
        if done:
            self._requests.append((operation_id, name, done[0]))

    async def _rename(self) -> None:
        user, name, new_name, key = self._user(), self._name(), self._name(), self._key(self._users[0])
        key = msgspec.structs.replace(key, user_id=user)
        done = await self._ask(
            "rename",
            lambda: self.model.rename(user, name, new_name),
            lambda process: Renaming(
                database=process.database, relay=Silent(), ebs=process.ebs, cipher=self._cipher, seconds=0.2,
                clock=self.clock,
            ).rename(user_id=user, name=name, new_name=new_name, key=key),
            user, name, new_name,
            rest=timedelta(seconds=30),
        )  # fmt: skip
        if done:
            renamed = done[1].answer.renamed
            assert (renamed.old_name, renamed.new_name) == (name, new_name)
            self._requests.append((renamed.operation_id, name, done[0]))

    async def _snapshot(self) -> None:
        user, name = self._user(), self._name()
        now, point_id, key = self.clock(), self._id(), self._key(user)
        done = await self._ask(
            "snapshot",
            lambda: self.model.snapshot(user, name, point_id=point_id, now=now),
            lambda process: request_snapshot(
                process.database, Silent(), Silent(), user_id=user, name=name, operation_id=point_id, key=key,
                cipher=self._cipher, now=now,
            ),
            user, name,
        )  # fmt: skip
        if done:
            self._taking[point_id] = done[0]
            self._requests.append((point_id, name, done[0].disk))

    # jobs

    async def _claim(self) -> None:
        user, name, size = self._user(), self._name(), self._chance.choice(SIZES)
        known = self._any_job() if self._chance.random() < 0.3 else None
        job_id, disk_id, operation_id = known.id if known else self._id(), self._id(), self._id()
        now = self.clock()
        wish = ClaimWish(
            job_id=job_id, user_id=user, username="u", disk_name=name, size_gb=size, at=now, provisional_for=PROVISIONAL
        )
        done = await self._ask(
            "claim again" if known else "claim",
            lambda: self.model.claim(user, name, job_id=job_id, size_gb=size, disk_id=disk_id, now=now),
            lambda process: claim_disk(
                process.database, Silent(), wish=wish, limits=LIMITS, new_disk_id=disk_id,
                new_operation_id=operation_id, zone=self._settings.availability_zone,
            ),
            user, name, size, job_id,
        )  # fmt: skip
        if done:
            disk, answer = done
            assert answer.id == disk.id
            if disk.id == disk_id:
                self._making[operation_id] = disk

    async def _submitted(self) -> None:
        job = self._any_job()
        if job is None:
            return
        now = self.clock()

        async def deliver(process: Process) -> None:
            async with process.database.transaction() as tx:
                await confirm_claim(tx, Silent(), job_id=job.id, disk_id=job.disk.id, now=now)

        await self._survive(deliver)
        self._note("submitted", "has it" if self.model.submitted(job.id, now=now) else "has it not", job.id)

    async def _ended(self) -> None:
        job, used, now, point_id = self._any_job(), self._chance.random() < 0.7, self.clock(), self._id()
        if job is None:
            return

        async def deliver(process: Process) -> None:
            async with process.database.transaction() as tx:
                await release_claim(tx, Silent(), job_id=job.id, used=used, snapshot_id=point_id, now=now)

        await self._survive(deliver)
        point = self.model.ended(job.id, used=used, point_id=point_id, now=now)
        if point is not None:
            self._taking[point_id] = point
            self._requests.append((point_id, job.disk.name, job.disk))
        self._note("ended", "backed up" if point else "no more", job.id)

    async def _tell_content(self) -> None:
        job = self._any_job()
        if job is None:
            return
        report = ContentReport(
            job_id=job.id, disk_id=job.disk.id, epoch=1, taken_at=self.clock(),
            listing=Listing(size_bytes=1, entries=[], truncated=False),
        )  # fmt: skip
        stored = await self._survive(lambda process: store_content(process.database, report=report))
        # stored by the process that died is stored: the same listing again is kept as well
        assert stored == self.model.told_content(job.id, job.disk)
        self._note("content", "kept" if stored else "not kept", job.id)

    # the service's own work

    async def _work(self) -> None:
        async def turn(process: Process) -> None:
            await Reconciler(
                database=process.database, relay=Silent(), ebs=process.ebs, retention=RETENTION, clock=self.clock
            ).turn()

        for _ in range(self._chance.randint(1, 3)):
            await self._survive(turn, rest=timedelta(seconds=10))
            self._now += timedelta(seconds=self._chance.choice((1, 5, 20)))
        self._note("work", "done", *[f"{seen}" for seen in await self._observe()])

    async def _observe(self) -> list[str]:
        """Have in the model what the service has done by now."""
        pending = [*self._making, *self._taking]
        rows = await self._database.fetch_all(_OUTCOMES, ids=pending)
        failed = [row["error"] for row in rows if row["status"] != "completed"]
        assert not failed, f"the service gave up: {failed}"
        made = [self._making.pop(row["id"]) for row in rows if row["id"] in self._making]
        for disk in made:
            self.model.made(disk)
        gone = {row["id"] for row in await self._database.fetch_all(_GONE)}
        sources = [disk.source for disk in made if disk.source is not None]
        for row in rows:
            if row["id"] in self._taking:
                point = self._taking.pop(row["id"])
                self.model.backed_up(point, now=row["updated_at"], gone=gone, doubtful=sources)
        purging = {disk.id: disk for disk in self.model.disks if disk.state == "purging"}
        purged = [row["id"] for row in await self._database.fetch_all(_PURGED, ids=list(purging))]
        for disk_id in purged:
            self.model.purged(purging[disk_id])
        for done, count in (("made", len(made)), ("completed", len(rows) - len(made)), ("purged", len(purged))):
            self.tally[f"work: {done}"] += count
        return [f"{len(rows)} completed, {len(purged)} purged"]

    async def _let_time_pass(self) -> None:
        spans = ({"seconds": 5}, {"seconds": 70}, {"hours": 5}, {"days": 2}, {"days": 8}, {"days": 29}, {"days": 31})
        (span,) = self._chance.choices(spans, (6, 8, 4, 4, 3, 1, 2))
        self._now += timedelta(**span)
        self._note("time", str(span))

    async def _keep_house(self) -> None:
        now = self.clock()

        async def turn(process: Process) -> None:
            await drop_expired_claims(process.database, now=now)
            await begin_purges(process.database, now=now)
            await prune_crowded(process.database, retention=RETENTION, now=now)
            await forget_history(process.database, before=now - HISTORY)

        await self._survive(turn)
        self.model.drop_expired(now)
        self.model.begin_purges(now)
        self.model.prune_all(now)
        self.model.forget(now - HISTORY)
        # nobody asks for what was forgotten months after its end
        remembered = {row["id"] for row in await self._database.fetch_all(_OPERATIONS)}
        self._requests = [asked for asked in self._requests if asked[0] in remembered]
        remembered = {row["id"] for row in await self._database.fetch_all(_DISKS)}
        for job in [job for job in self.model.jobs.values() if job.disk.id not in remembered]:
            del self.model.jobs[job.id]
        self._note("house", "kept")

    async def _sweep(self) -> None:
        async def sweep(process: Process) -> None:
            sweeper = Sweeper(
                database=process.database, relay=Silent(), ebs=process.ebs, period_seconds=60, clock=self.clock
            )
            try:
                findings = await sweeper.sweep()
            except AwsUnavailable:
                return
            assert findings.missing_volumes == findings.missing_snapshots == [], findings
            assert findings.adoptions == [], findings
            # other tests' AWS is the same; none of the walk's own may be taken for nobody's
            own = {str(disk.id) for disk in self.model.disks}
            assert not own & await self._disks_of(findings.orphan_volumes), findings

        await self._survive(sweep, rest=timedelta(seconds=10))
        self._note("sweep", "done")

    async def _disks_of(self, volume_ids: list[str]) -> set[str]:
        if not volume_ids:
            return set()
        answer = await asyncio.to_thread(self._cloud.describe_volumes, VolumeIds=volume_ids)
        return {tag["Value"] for found in answer["Volumes"] for tag in found["Tags"] if tag["Key"] == TAG_DISK}

    # the world outside

    async def _change_weather(self) -> None:
        self._trouble.share = self._chance.choice((0.0, 0.0, 0.1, 0.4, 1.0))
        self._note("AWS", f"{self._trouble.share:.0%} trouble")

    async def _plant_foreign(self) -> None:
        """Somebody copies a restore point with its tags, as scanners do, and makes a volume that says it is ours."""
        kept = await self._database.fetch_all(_KEPT)
        if not kept or len(self._foreign["snapshot"]) > 20:
            return
        row = self._chance.choice(list(kept))
        point = next(point for disk in self.model.disks for point in disk.points if point.id == row["id"])
        tags = {
            TAG_DISK: str(row["disk_id"]), TAG_OPERATION: str(row["id"]), TAG_USER: str(point.disk.owner),
            TAG_NAME: "a copy",
        }  # fmt: skip
        zone = self._settings.availability_zone
        volume = await asyncio.to_thread(
            self._cloud.create_volume, AvailabilityZone=zone, Size=10,
            TagSpecifications=[_tagged("volume", {**tags, TAG_DISK: str(self._id())})],
        )  # fmt: skip
        copy = await asyncio.to_thread(
            self._cloud.create_snapshot, VolumeId=volume["VolumeId"],
            Description=f"[Copied {row['snapshot_id']} from {self._settings.aws_region}]",
            TagSpecifications=[_tagged("snapshot", tags)],
        )  # fmt: skip
        self._foreign["volume"].add(volume["VolumeId"])
        self._foreign["snapshot"].add(copy["SnapshotId"])
        self._note("foreign", "planted")

    # comparison

    async def _compare(self) -> None:
        """What each user sees is what the model says."""
        for user in self._users:
            for deleted in (False, True):
                page = await list_disks(self._database, user_id=user, include_deleted=deleted, limit=500, offset=0)
                expected = [self._expected(disk) for disk in self.model.listed(user, deleted=deleted)]
                assert [_seen(disk) for disk in page.disks] == expected, "the list of disks"
                assert page.total == len(expected)
        await self._compare_one()

    async def _compare_one(self) -> None:
        user, name = self._user(), self._name()
        try:
            disk = self.model.find(user, name)
        except Refusal:
            disk = None
        try:
            page = await list_snapshots(self._database, user_id=user, name=name, limit=500, offset=0)
            _, content = await get_content(self._database, user_id=user, name=name)
        except NotFound:
            assert disk is None, f"{name} is not found"
            return
        assert disk is not None, f"{name} is found"
        shown = [(point.id, point.job_id, str(point.status)) for point in page.snapshots]
        assert shown == [(p.id, p.job_id, p.state) for p in disk.kept("pending", "completed")], "the restore points"
        assert (content.job_id, content.missed_job_id) == (disk.listed_job, disk.missed_job)
        if self._requests:
            operation_id, old_name, asked = self._chance.choice(self._requests)
            for known_as in {old_name, asked.name}:
                found = await get_operation(
                    self._database, user_id=asked.owner, name=known_as, operation_id=str(operation_id)
                )
                assert found.disk_id == asked.id

    def _expected(self, disk: ModelDisk) -> tuple[object, ...]:
        holder = self.model.holder(disk)
        return (
            disk.id, disk.name, disk.size_gb, disk.state, disk.deleted_at, disk.purge_at, disk.last_used,
            holder.id if holder else None, disk.backing_up, len(disk.kept("completed")),
        )  # fmt: skip

    async def _settle(self) -> None:
        """Let all work end; then AWS holds what the tables say, and nothing else of these users."""
        self._trouble.share = 0.0
        for _ in range(300):
            await self._work()
            if not await self._database.fetch_value(_OPEN):
                break
        assert not await self._database.fetch_value(_OPEN), "the work does not end"
        self._now += timedelta(minutes=10)
        for _ in range(2):
            await self._sweep()
            await self._work()
        await self._compare_aws()
        await self._compare_versions()

    async def _compare_aws(self) -> None:
        named = {row["id"]: row["snapshot_id"] for row in await self._database.fetch_all(_KEPT)}
        for user in self._users:
            owned = [disk for disk in self.model.listed_everywhere() if disk.owner == user]
            volumes = [v for v in await volumes_of(self._cloud, user) if v["VolumeId"] not in self._foreign["volume"]]
            found = sorted((_tag(v, TAG_DISK), v["Size"], _tag(v, TAG_NAME)) for v in volumes)
            assert found == sorted((str(disk.id), disk.size_gb, disk.name) for disk in owned), "volumes in AWS"
            taken = await snapshots_of_user(self._cloud, user)
            ours = [s for s in taken if s["SnapshotId"] not in self._foreign["snapshot"]]
            points = [point for disk in owned for point in disk.kept("completed")]
            assert sorted((s["SnapshotId"], _tag(s, TAG_NAME)) for s in ours) == sorted(
                (named[point.id], point.disk.name) for point in points
            ), "snapshots in AWS"
        for kind, planted in self._foreign.items():
            await self._assert_untouched(kind, planted)

    async def _assert_untouched(self, kind: str, planted: set[str]) -> None:
        if planted:
            describe = getattr(self._cloud, f"describe_{kind}s")
            answer = await asyncio.to_thread(describe, **{f"{kind.capitalize()}Ids": sorted(planted)})
            (listed,) = (value for key, value in answer.items() if key == f"{kind.capitalize()}s")
            assert len(listed) == len(planted), f"others' {kind}s"

    async def _compare_versions(self) -> None:
        """The events of each disk are numbered from one without a gap."""
        seen: dict[str, list[int]] = {}
        for row in await self._database.fetch_all(_VERSIONS):
            seen.setdefault(row["entity_id"], []).append(row["entity_version"])
        for disk_id, versions in seen.items():
            assert versions == list(range(1, len(versions) + 1)), f"versions of {disk_id}"

    # chances

    def _user(self) -> int:
        return self._chance.choice(self._users)

    def _name(self) -> str:
        return self._chance.choice(NAMES)

    def _id(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)

    def _key(self, user: int) -> IdempotencyKey:
        return IdempotencyKey(user, str(self._id()), b"")

    def _any_point(self) -> UUID:
        points = [point for disk in self.model.listed_everywhere() for point in disk.points]
        return self._chance.choice(points).id if points else self._id()

    def _any_job(self) -> ModelJob | None:
        """Mostly one that has a disk."""
        jobs = list(self.model.jobs.values())
        holding = [job for job in jobs if job.holds]
        if holding and self._chance.random() < 0.8:
            return self._chance.choice(holding)
        return self._chance.choice(jobs) if jobs else None


def _tried(expect: Callable[[], EffectT]) -> tuple[Refusal | None, EffectT | None]:
    try:
        return None, expect()
    except Refusal as refusal:
        return refusal, None


def _seen(disk: Disk) -> tuple[object, ...]:
    return (
        disk.id, disk.name, disk.size_gb, str(disk.state), disk.deleted_at, disk.purge_at, disk.last_used, disk.job_id,
        disk.backing_up, disk.snapshot_count,
    )  # fmt: skip


def _tagged(kind: str, tags: dict[str, str]) -> dict[str, Any]:
    return {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _tag(found: dict[str, Any], key: str) -> str:
    return next(tag["Value"] for tag in found["Tags"] if tag["Key"] == key)
