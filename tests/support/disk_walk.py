"""A walk over the API: random steps on the running disks service, each answer held against the model.

The steps are drawn before the walk from its seed alone. What a step acts on is chosen by its own dice among what the
model has, so the same seed walks the same way.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import msgspec
import sqlalchemy as sa

from services.disks.domain.ledger import Findings
from services.disks.settings import DisksSettings
from services.disks.storage.tables import operations, snapshots
from shared.database import Database, Statement
from tests.support.aws_faults import CallFaults, before_aws
from tests.support.disk_model import AVAILABLE, PURGING
from tests.support.disk_steps import JobSteps, RequestSteps
from tests.support.disk_walker import NOTHING, REGION, RENAME_SECONDS, RULES, ZONE, Divergence, Step, tags_of
from tests.support.disks import snapshots_of_user, volumes_of
from tests.support.harness import nats_client
from tests.support.servers import MotoServer, stand_in_url

_id = sa.bindparam("id", type_=sa.Uuid)
_LOSE_POINT = Statement(sa.delete(snapshots).where(snapshots.c.id == _id))
_LOSE_OPERATION = Statement(sa.delete(operations).where(operations.c.id == _id))


KINDS: Sequence[tuple[str, float]] = (
    ("create", 10),
    ("delete", 6),
    ("restore", 4),
    ("rename", 6),
    ("snapshot", 6),
    ("show", 3),
    ("list", 3),
    ("show_operation", 4),
    ("show_points", 2),
    ("show_content", 2),
    ("claim", 10),
    ("submitted", 7),
    ("ended", 8),
    ("tell_content", 3),
    ("work", 24),
    ("expire", 3),
    ("purge", 3),
    ("history", 2),
    ("sweep", 2),
    ("pass_time", 11),
    ("copy", 1.5),
    ("foreign_volume", 0.3),
    ("spoil_tag", 1),
    ("lose_row", 0.7),
    ("aws_fault", 4),
    ("restart", 1),
)
DEATHS = 0.12
_INSTANTS = (0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 11, 15)


def draw(seed: int, count: int) -> list[Step]:
    """The steps of a walk."""
    chance = random.Random(seed)
    kinds = chance.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS], k=count)
    return [
        Step(
            kind,
            tuple(chance.random() for _ in range(6)),
            chance.choice(_INSTANTS) if chance.random() < DEATHS else None,
        )
        for kind in kinds
    ]


class Walk(RequestSteps, JobSteps):
    """One walk of two users."""

    async def take(self, number: int, step: Step) -> None:
        """Take one step, and look at what there is after it."""
        self.story.append(f"{number} {step.kind}" + ("" if step.dies_at is None else f" dies at {step.dies_at}"))
        act: Callable[[Step], Awaitable[str]] = getattr(self, f"do_{step.kind}")
        outcome = await act(step)
        self.story[-1] += f": {outcome}"
        self.tally[f"{step.kind} {outcome.partition(' ')[0]}"] += 1
        # no two things happen at one moment
        self.model.now += timedelta(milliseconds=1)
        await self.look(everywhere=number % 10 == 0)

    async def settle(self) -> Findings:
        """Let everything end that is under way, and compare AWS, the tables and the model."""
        self.faults.clear()
        self.story.append("settling")
        await self.restart()
        for _ in range(2):
            await self.finish()
            self.model.now += timedelta(minutes=10)
            await self.sweep()
            await self.see_adoptions(certain=True)
        await self.finish()
        await self.look(everywhere=True)
        await self.compare_with_aws()
        return await self.findings()

    async def clean(self) -> None:
        """Leave nothing in AWS."""
        await self.process.stop()
        for user in self.users:
            for one in await snapshots_of_user(self.cloud, user.user_id):
                await asyncio.to_thread(self.cloud.delete_snapshot, SnapshotId=one["SnapshotId"])
            for one in await volumes_of(self.cloud, user.user_id):
                await asyncio.to_thread(self.cloud.delete_volume, VolumeId=one["VolumeId"])

    async def work_due(self) -> None:
        await self.process.work()

    async def do_work(self, step: Step) -> str:
        before = len(self.model.open_operations())
        await self.survive(step, self.work_due)
        await self.see_work()
        return f"{'ended' if len(self.model.open_operations()) < before else 'went on'} {before} were open"

    async def do_expire(self, step: Step) -> str:
        await self.survive(step, lambda: self.turn("claim_expiry"))
        self.model.expire_claims()
        return "done"

    async def do_purge(self, step: Step) -> str:
        await self.survive(step, lambda: self.turn("disk_purge"))
        self.model.begin_purges()
        purging = sum(disk.state == PURGING for disk in self.model.disks)
        return f"{'purging' if purging else 'nothing'} {purging}"

    async def do_history(self, step: Step) -> str:
        await self.survive(step, lambda: self.turn("disk_history"))
        before = len(self.model.operations)
        self.model.pass_history()
        return f"{'forgot' if len(self.model.operations) < before else 'done'}"

    async def do_sweep(self, step: Step) -> str:
        await self.survive(step, lambda: self.turn("ebs_sweeper"))
        return f"{'adopted' if await self.see_adoptions() else 'done'}"

    async def do_pass_time(self, step: Step) -> str:
        spans = (
            *(timedelta(seconds=seconds) for seconds in (1, 5, 10, 30, 70)),
            timedelta(seconds=61),
            timedelta(hours=3),
            timedelta(days=1),
            timedelta(days=4),
            timedelta(weeks=1),
            timedelta(days=31),
        )
        span = timedelta(days=91) if step.dice[2] < 0.03 else self.chosen(step.dice[1], spans)
        self.model.now += span
        return f"{'long' if span >= timedelta(days=1) else 'short'} {span}"

    async def do_aws_fault(self, step: Step) -> str:
        kind = self.chosen(step.dice[1], ("throttle", "throttle", "lose", "lose", "refuse", "down", "clear"))
        actions: tuple[str, ...] = ("CreateVolume", "CreateSnapshot", "CreateTags")
        if kind != "refuse":
            actions += ("DeleteVolume", "DeleteSnapshot", "DescribeSnapshots", "DescribeVolumes")
        action = self.chosen(step.dice[2], actions)
        if kind == "clear":
            self.faults.clear()
        else:
            self.faults.set_next(kind, "" if kind == "down" else action, 1 + int(step.dice[3] * 3))
        return f"{kind} {action}"

    async def do_restart(self, _: Step) -> str:
        await self.restart()
        return "done"

    async def _taken_of(self, dice: float) -> Any:
        """One of our snapshots in AWS, whatever the tables say of it."""
        user = self.chosen(dice, self.users)
        taken = [o for o in await snapshots_of_user(self.cloud, user.user_id) if o["SnapshotId"] not in self.copies]
        taken.sort(key=lambda one: (one["StartTime"], one["SnapshotId"]))
        return self.chosen((dice * 7) % 1, taken) if taken else None

    async def do_copy(self, step: Step) -> str:
        """Somebody copies a snapshot of ours, its tags too."""
        one = await self._taken_of(step.dice[1])
        if one is None:
            return NOTHING
        copy = await asyncio.to_thread(
            self.cloud.copy_snapshot, SourceSnapshotId=one["SnapshotId"], SourceRegion=REGION
        )
        copy_id = copy["SnapshotId"]
        await asyncio.to_thread(self.cloud.create_tags, Resources=[copy_id], Tags=one["Tags"])
        self.copies[copy_id] = tags_of(one)
        return f"made {copy_id} of {one['SnapshotId']}"

    async def do_foreign_volume(self, step: Step) -> str:
        """Somebody has a volume with tags like ours, of no disk of ours."""
        tags = {"gpudev:disk-id": str(uuid4()), "gpudev:user-id": str(self.user(step).user_id), "Name": "theirs"}
        pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
        made = await asyncio.to_thread(
            self.cloud.create_volume,
            AvailabilityZone=ZONE,
            Size=10,
            TagSpecifications=[{"ResourceType": "volume", "Tags": pairs}],
        )
        self.foreign.add(made["VolumeId"])
        return f"made {made['VolumeId']}"

    async def do_spoil_tag(self, step: Step) -> str:
        """Somebody gives one of our resources another name in AWS."""
        user = self.user(step)
        if step.dice[1] < 0.5:
            one = await self._taken_of(step.dice[2])
            aws_id = None if one is None else one["SnapshotId"]
        else:
            volumes = [v["VolumeId"] for v in await volumes_of(self.cloud, user.user_id)]
            own = sorted(set(volumes) - self.foreign)
            aws_id = self.chosen(step.dice[2], own) if own else None
        if aws_id is None:
            return NOTHING
        tags = [{"Key": "Name", "Value": "spoilt"}]
        await asyncio.to_thread(self.cloud.create_tags, Resources=[aws_id], Tags=tags)
        return f"done {aws_id}"

    async def do_lose_row(self, step: Step) -> str:
        """The tables forget a snapshot, as those of a backup from before it do."""
        points = [
            point
            for disk in self.model.disks
            if disk.state == AVAILABLE
            for point in disk.kept
            if not self.model._is_source(point)
        ]
        if not points:
            return NOTHING
        point = self.chosen(step.dice[1], points)
        await self.database.execute(_LOSE_POINT, id=point.id)
        await self.database.execute(_LOSE_OPERATION, id=point.id)
        self.model.lose(point)
        return f"done {point.id} of {point.disk.name}"


@asynccontextmanager
async def walking(settings: DisksSettings, database: Database, moto: MotoServer) -> AsyncIterator[Walk]:
    """A walk that is ready for its first step."""
    faults = CallFaults()
    endpoint = settings.aws_endpoint_url
    assert endpoint is not None
    async with nats_client(stand_in_url(settings.nats_url)) as stand_in, before_aws(endpoint, faults) as url:
        there = msgspec.structs.replace(
            settings,
            aws_endpoint_url=url,
            aws_region=REGION,
            availability_zone=ZONE,
            max_disks_per_user=RULES.disks,
            max_disk_gb_per_user=RULES.gb,
            snapshots_newest=RULES.newest,
            snapshots_weeks=RULES.weeks,
            rename_seconds=RENAME_SECONDS,
            disk_retention_days=RULES.retention / timedelta(days=1),
            claim_seconds=RULES.claim.total_seconds(),
            log_level="critical",
        )
        walk = Walk(there, database, moto.client("ec2", region=REGION), stand_in, faults)
        await walk.begin()
        try:
            yield walk
        finally:
            await walk.clean()


async def walk(settings: DisksSettings, database: Database, moto: MotoServer, *, seed: int, steps: int) -> Counter[str]:
    """Walk, settle, compare.

    Returns:
        How often what was done, and how it was answered.

    Raises:
        Divergence: With the seed and every step up to there.
    """
    async with walking(settings, database, moto) as one:
        try:
            for number, step in enumerate(draw(seed, steps)):
                await one.take(number, step)
            await one.settle()
        except Exception as error:
            story = "\n".join(one.story)
            raise Divergence(f"seed {seed}, {steps} steps:\n{story}\n{type(error).__name__}: {error}") from error
        return one.tally + one.faults.played
