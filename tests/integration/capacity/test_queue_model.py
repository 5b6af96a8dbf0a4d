"""The queue on a real database against a model of it, over random histories."""

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.capacity.domain.availability import count_availability
from services.capacity.domain.fleet import GpuPod
from services.capacity.domain.placement import SchedulingPolicy
from services.capacity.operations.read import read_facts, read_snapshot
from services.capacity.operations.record_cluster import confirm_node_gone, forget_pod, record_pods
from shared.contracts.jobs import (
    JobCancelRequested,
    JobEnded,
    JobEvent,
    JobExtended,
    JobPrioritised,
    JobReady,
    JobRequeued,
    JobStarted,
    JobStatus,
    JobSubmitted,
)
from shared.database import Database
from tests.support.capacity import NOW, Capacity, about, facts

SEEDS = 6
STEPS = 80
POLICY = SchedulingPolicy(most_gpus_per_user=12, preparation=timedelta(minutes=10), release=timedelta(minutes=1))
ZONES = (None, "a", "b")
_SIZES = (1, 1, 2, 4, 8)


@dataclass
class ModelJob:
    """What the test knows of a job, from its own events and from what the service told."""

    event: JobSubmitted
    ready: bool = True
    priority: int = 0
    node: str | None = None
    epoch: int = 0
    granted_at: datetime = NOW
    expires_at: datetime | None = None
    leaving: bool = False
    over: bool = False

    @property
    def order(self) -> tuple[int, datetime, UUID]:
        return -self.priority, self.event.submitted_at, self.event.job_id

    @property
    def waits(self) -> bool:
        return not self.over and not self.leaving and self.node is None

    def end(self, now: datetime) -> datetime:
        if self.leaving:
            return now + POLICY.release
        if self.expires_at is not None:
            return max(self.expires_at, now) + POLICY.release
        duration = timedelta(seconds=self.event.duration_seconds)
        return max(self.granted_at + POLICY.preparation, now) + duration + POLICY.release


@dataclass
class ModelNode:
    gpus: int
    """Allocatable: those of its devices that are well."""
    zone: str | None
    devices: int
    schedulable: bool = True
    ready: bool = True
    version: int = 1
    foreign: int = 0

    @property
    def usable(self) -> bool:
        return self.schedulable and self.ready

    def suits(self, job: ModelJob) -> bool:
        zone = job.event.availability_zone
        return self.gpus >= job.event.gpu_count and (zone is None or self.zone is None or zone == self.zone)


@dataclass
class World:
    """One random history."""

    capacity: Capacity
    chance: random.Random
    now: datetime = NOW
    jobs: dict[UUID, ModelJob] = field(default_factory=dict)
    nodes: dict[str, ModelNode] = field(default_factory=dict)
    made: int = 0

    # ------------------------------------------------------------ what happens

    async def step(self) -> None:
        kinds = (
            (self.submit, 16),
            (self.start, 6),
            (self.end, 5),
            (self.extend, 2),
            (self.cancel, 1),
            (self.requeue, 1),
            (self.cordon, 1),
            (self.fall_silent, 1),
            (self.break_devices, 1),
            (self.add_node, 1),
            (self.lose_node, 0.5),
            (self.foreign, 1),
            (self.prioritise, 1),
            (self.restart, 1),
            (self.disk_ready, 1),
        )
        act = self.chance.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
        await act()
        self.now += timedelta(minutes=self.chance.choice((0, 1, 7, 20)))
        await self.round()

    async def submit(self) -> None:
        self.made += 1
        ready = self.chance.random() < 0.9
        event = await self.capacity.submit(
            self.chance.choice(_SIZES),
            at=self.now,
            user_id=self.chance.randint(1, 6),
            duration_seconds=60 * self.chance.choice((5, 20, 60, 240)),
            waits_for_disk=not ready,
            availability_zone=self.chance.choice((None, None, "a", "b")),
            job_id=UUID(int=self.made),
        )
        self.jobs[event.job_id] = ModelJob(event, ready=ready)

    async def start(self) -> None:
        job = self.pick(lambda one: one.node is not None and one.expires_at is None and not one.leaving)
        if job is not None:
            job.expires_at = self.now + timedelta(seconds=job.event.duration_seconds)
            await self.tell(
                job,
                JobStarted,
                JobStatus.ACTIVE,
                node=job.node,
                epoch=job.epoch,
                started_at=self.now,
                expires_at=job.expires_at,
            )

    async def end(self) -> None:
        job = self.pick(lambda one: one.node is not None)
        if job is not None:
            await self.over(job)

    async def over(self, job: ModelJob) -> None:
        job.node, job.over = None, True
        await self.tell(job, JobEnded, JobStatus.COMPLETED, ended_at=self.now, epoch=job.epoch)

    async def extend(self) -> None:
        job = self.pick(lambda one: one.expires_at is not None and one.node is not None and not one.leaving)
        if job is not None and job.expires_at is not None:
            job.expires_at += timedelta(hours=1)
            await self.tell(job, JobExtended, JobStatus.ACTIVE, expires_at=job.expires_at, extension_seconds=3600)

    async def cancel(self) -> None:
        job = self.pick(lambda one: not one.over and not one.leaving)
        if job is not None:
            job.leaving = True
            await self.tell(job, JobCancelRequested, JobStatus.ACTIVE if job.node else JobStatus.CANCELLED)
            if job.node is None:
                await self.over(job)

    async def requeue(self) -> None:
        job = self.pick(lambda one: one.node is not None and one.expires_at is None and not one.leaving)
        if job is not None:
            await self.give_back(job)

    async def give_back(self, job: ModelJob) -> None:
        job.node = None
        await self.tell(job, JobRequeued, JobStatus.QUEUED, epoch=job.epoch, reason="no room")

    async def cordon(self) -> None:
        name = self.chance.choice(sorted(self.nodes))
        node = self.nodes[name]
        node.schedulable = not node.schedulable
        await self.report(name)

    async def fall_silent(self) -> None:
        name = self.chance.choice(sorted(self.nodes))
        self.nodes[name].ready = not self.nodes[name].ready
        await self.report(name)

    async def break_devices(self) -> None:
        name = self.chance.choice(sorted(self.nodes))
        node = self.nodes[name]
        node.gpus = self.chance.randint(1, node.devices) if node.gpus == node.devices else node.devices
        await self.report(name)

    async def add_node(self) -> None:
        if len(self.nodes) < 6:
            self.made += 1
            name = f"n{self.made}"
            devices = self.chance.choice((4, 8, 8))
            self.nodes[name] = ModelNode(devices, self.chance.choice(ZONES), devices)
            await self.report(name)

    async def report(self, name: str) -> None:
        node = self.nodes[name]
        node.version += 1
        seen = facts(
            name,
            gpus=node.gpus,
            zone=node.zone,
            schedulable=node.schedulable,
            ready=node.ready,
            resource_version=node.version,
        )
        await self.capacity.nodes(seen, now=self.now)

    async def lose_node(self) -> None:
        if len(self.nodes) < 2:
            return
        name = self.chance.choice(sorted(self.nodes))
        del self.nodes[name]
        await confirm_node_gone(self.capacity.context, name=name, uid=f"uid-{name}", now=self.now)
        for job in [job for job in self.jobs.values() if job.node == name]:
            await (self.over(job) if job.expires_at or job.leaving else self.give_back(job))

    async def foreign(self) -> None:
        name = self.chance.choice(sorted(self.nodes))
        node = self.nodes[name]
        uid = f"foreign-{name}"
        if node.foreign:
            node.foreign = 0
            await forget_pod(self.capacity.context, uid=uid, resource_version=9)
        elif (free := node.gpus - self.held()[name]) > 0:
            node.foreign = self.chance.randint(1, free)
            pod = GpuPod(uid=uid, resource_version=1, name=uid, node=name, gpus=node.foreign, job_id=None)
            await record_pods(self.capacity.context, [pod], now=self.now)

    async def prioritise(self) -> None:
        job = self.pick(lambda one: one.waits)
        if job is not None:
            job.priority = self.chance.randint(-2, 2)
            await self.tell(job, JobPrioritised, JobStatus.QUEUED, priority=job.priority)

    async def disk_ready(self) -> None:
        job = self.pick(lambda one: one.waits and not one.ready)
        if job is not None:
            job.ready = True
            await self.tell(job, JobReady, JobStatus.QUEUED)

    async def restart(self) -> None:
        await self.capacity.database.close()
        self.capacity.database = Database(self.capacity.dsn, pool_size=4)

    async def tell(self, job: ModelJob, kind: type[JobEvent], status: JobStatus, **fields: Any) -> None:
        await self.capacity.apply(about(job.event, kind, status, **fields))

    def pick(self, fits: Any) -> ModelJob | None:
        fitting = [job for job in self.jobs.values() if fits(job)]
        return self.chance.choice(fitting) if fitting else None

    # ------------------------------------------------------------ the model and the checks

    async def round(self) -> None:
        expected, head, promised = self.first_come_first_served()
        await self.capacity.schedule(self.now)
        granted = await self.take_in_leases()
        assert expected.keys() <= granted, "somebody whose turn it was did not start"
        if head is not None:
            start = self.first_start(head, [])
            assert head.node is not None or promised is None or (start is not None and start <= promised), (
                "the head was delayed by a backfilled job"
            )
        await self.check_answers()

    def first_come_first_served(self) -> tuple[dict[UUID, str], ModelJob | None, datetime | None]:
        """Who starts without backfill, who is the head then, and when it can start at the latest."""
        placed: dict[UUID, str] = {}
        users, held = self.users(), self.held()
        for job in sorted((job for job in self.jobs.values() if job.waits and job.ready), key=lambda job: job.order):
            count = job.event.gpu_count
            if users[job.event.user_id] + count > 12 or not any(node.suits(job) for node in self.nodes.values()):
                continue
            free = {name: self.free(name, held) for name, node in self.nodes.items() if node.suits(job)}
            fitting = [(left, name) for name, left in free.items() if left >= count]
            if not fitting:
                extra = [(placed[other], self.jobs[other]) for other in placed]
                return placed, job, self.first_start(job, extra)
            placed[job.event.job_id] = min(fitting)[1]
            held[placed[job.event.job_id]] += count
            users[job.event.user_id] += count
        return placed, None, None

    def first_start(self, head: ModelJob, extra: list[tuple[str, ModelJob]]) -> datetime | None:
        """When the head fits somewhere if every job runs to its end; None: nobody can say."""
        running = [(job.node, job) for job in self.jobs.values() if job.node is not None] + extra
        starts = []
        for name, node in self.nodes.items():
            if not node.usable or not node.suits(head):
                continue
            ends = [(self.end_of(job, extra), job.event.gpu_count) for where, job in running if where == name]
            for time in sorted({self.now, *(end for end, _ in ends)}):
                used = node.foreign + sum(count for end, count in ends if end > time)
                if node.gpus - used >= head.event.gpu_count:
                    starts.append(time)
                    break
        return min(starts, default=None)

    def end_of(self, job: ModelJob, extra: list[tuple[str, ModelJob]]) -> datetime:
        if any(job is one for _, one in extra):
            return self.now + POLICY.preparation + timedelta(seconds=job.event.duration_seconds) + POLICY.release
        return job.end(self.now)

    def held(self) -> Counter[str]:
        return Counter(
            name for job in self.jobs.values() if (name := job.node) is not None for _ in range(job.event.gpu_count)
        )

    def users(self) -> Counter[int]:
        return Counter(
            job.event.user_id for job in self.jobs.values() if job.node is not None for _ in range(job.event.gpu_count)
        )

    def free(self, name: str, held: Counter[str]) -> int:
        node = self.nodes[name]
        return node.gpus - node.foreign - held[name] if node.usable else 0

    async def take_in_leases(self) -> set[UUID]:
        leases = await self.capacity.leases()
        assert len({(node, index) for node, index, _ in leases}) == len(leases), "a GPU was leased twice"
        by_job: dict[UUID, set[str]] = {}
        for node, index, job_id in leases:
            assert index < self.nodes[node].devices, "a GPU that is not there was leased"
            by_job.setdefault(job_id, set()).add(node)
        sizes = Counter(job_id for _, _, job_id in leases)
        granted = set()
        for job_id, where in by_job.items():
            job = self.jobs[job_id]
            assert len(where) == 1
            assert sizes[job_id] == job.event.gpu_count
            if job.node is None:
                job.node, job.granted_at, job.expires_at = where.pop(), self.now, None
                job.epoch += 1
                granted.add(job_id)
                assert job.ready
                assert not job.over
                assert not job.leaving
                assert self.nodes[job.node].usable
                assert self.nodes[job.node].suits(job)
                assert self.users()[job.event.user_id] <= 12
        assert by_job.keys() == {job_id for job_id, job in self.jobs.items() if job.node is not None}
        # what was leased before a device failed stays; on such a node nothing more is
        for name in {self.jobs[job_id].node for job_id in granted} - {None}:
            node = self.nodes[str(name)]
            assert self.held()[str(name)] + node.foreign <= node.gpus, "more is leased than is allocatable"
        return granted

    async def check_answers(self) -> None:
        known = await read_facts(self.capacity.database, self.capacity.context.known_fleet)
        assert known == await read_facts(self.capacity.database)
        for entry in count_availability(await read_snapshot(self.capacity.database)):
            assert entry.total == entry.available + entry.in_use
            waiting = [job for job in self.jobs.values() if job.waits and job.ready]
            assert entry.queued == sum(job.event.gpu_count for job in waiting)
        for job_id, job in self.jobs.items():
            row = await self.capacity.entry_row(job_id)
            if job.waits and row["estimated_start_at"] is not None:
                assert row["estimated_start_at"] <= row["estimated_p90_at"]

    async def drain(self) -> None:
        """Nobody comes any more and everybody runs to their end: nobody may be left."""
        for name, node in list(self.nodes.items()):
            if node.foreign:
                node.foreign = 0
                await forget_pod(self.capacity.context, uid=f"foreign-{name}", resource_version=9)
            node.schedulable, node.ready, node.gpus = True, True, node.devices
            await self.report(name)
        for job in self.jobs.values():
            job.ready = job.ready or await self.make_ready(job)
        for _ in range(3 * len(self.jobs)):
            await self.round()
            running = [job for job in self.jobs.values() if job.node is not None]
            if not running:
                break
            first = min(running, key=lambda job: job.end(self.now))
            self.now = max(self.now, first.end(self.now))
            await self.over(first)
        waiting = [job for job in self.jobs.values() if job.waits]
        assert not [job for job in waiting if any(node.suits(job) for node in self.nodes.values())], "a job starves"

    async def make_ready(self, job: ModelJob) -> bool:
        if job.waits:
            await self.tell(job, JobReady, JobStatus.QUEUED)
        return True


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_the_queue_holds_its_promises_over_any_history(capacity: Capacity, seed: int) -> None:
    capacity.policy = POLICY
    world = World(capacity, random.Random(seed))
    for _ in range(3):
        await world.add_node()
    for _ in range(STEPS):
        await world.step()
    assert any(job.over for job in world.jobs.values())
    await world.drain()


async def test_such_a_history_has_jobs_that_are_backfilled(capacity: Capacity) -> None:
    capacity.policy = POLICY
    world = World(capacity, random.Random(1))
    for _ in range(3):
        await world.add_node()
    backfilled = 0
    for _ in range(STEPS):
        await world.step()
    for job_id in world.jobs:
        events = await capacity.events(job_id)
        backfilled += sum(b'"backfilled":true' in bytes(event.data) for event in events)
    assert backfilled > 0
