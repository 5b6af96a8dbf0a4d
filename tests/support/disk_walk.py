"""A walk over the API: random steps on the running disks service, each answer held against the model.

The steps are drawn before the walk from its seed alone. What a step acts on is chosen by its own dice among what the
model has, so the same seed walks the same way.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
import msgspec
import nats
import sqlalchemy as sa

from services.disks.adapters.ec2 import Ec2
from services.disks.app import service_parts
from services.disks.domain.ledger import Findings
from services.disks.settings import DisksSettings
from services.disks.storage.tables import disks, operations, snapshots
from services.disks.workers.sweeps import Sweeper
from shared.background import Loop
from shared.contracts.disks import ClaimReply, ClaimRequest, Listing, ListingEntry
from shared.database import Database, Statement
from shared.web.app import Foundation, ServiceParts, create_service_app
from tests.support.aws_proxy import Moods, before_aws
from tests.support.disk_model import (
    AVAILABLE,
    COMPLETED,
    CONFIRMED,
    DROPPED,
    FAILED,
    LOST,
    PROVISIONAL,
    PURGING,
    Disk,
    Job,
    Model,
    Operation,
    Point,
    Rules,
    differences,
)
from tests.support.disks import (
    Auth,
    Jobs,
    Silent,
    User,
    cloud_event,
    job_ended,
    job_submitted,
    snapshots_of_user,
    volumes_of,
)
from tests.support.ground import eventually
from tests.support.mortal import Fuse, Killed, MortalDatabase, MortalEc2
from tests.support.servers import MotoServer, stand_in_url

ChosenT = TypeVar("ChosenT")

BEGINNING = datetime(2030, 1, 7, 9, tzinfo=UTC)
"""A Monday, later than any clock's: nothing that the walk writes is old to what reads the real one."""
RULES = Rules(disks=5, gb=300, newest=3, weeks=3, retention=timedelta(days=30), claim=timedelta(seconds=60))
REGION = "eu-west-1"
"""The walks' own: a sweep reads all that is in its region, and other tests leave thousands of snapshots."""
_ZONE = "eu-west-1a"
NAMES = ("a", "b", "c", "d", "e", "f", "g")
_WORKER_LEASE = timedelta(seconds=9)
_RENAME_SECONDS = 0.4
_SETTLING_ROUNDS = 60
_NOTHING = "none"

_id = sa.bindparam("id", type_=sa.Uuid)
_LOSE_POINT = Statement(sa.delete(snapshots).where(snapshots.c.id == _id))
_LOSE_OPERATION = Statement(sa.delete(operations).where(operations.c.id == _id))
_DISKS = Statement(sa.select(disks))
_POINTS = Statement(sa.select(snapshots))
_OPEN = Statement(
    sa.select(operations.c.id, operations.c.action, operations.c.status).where(
        operations.c.status.not_in([sa.literal_column("'completed'"), sa.literal_column("'failed'")])
    )
)
_EMPTY = Statement(sa.text("TRUNCATE disks, operations, claims, snapshots, contents, outbox, idempotency_keys"))


class Divergence(AssertionError):
    """The service did other than the model."""


@dataclass(frozen=True)
class Step:
    """What is to be done, with the dice for everything that it leaves open."""

    kind: str
    dice: tuple[float, ...]
    dies_at: int | None
    """Instant of the service's death in the midst of it; None: it lives."""


KINDS: Sequence[tuple[str, float]] = (
    ("create", 10), ("delete", 6), ("restore", 4), ("rename", 6), ("snapshot", 6), ("show", 3), ("list", 3),
    ("show_operation", 4), ("show_points", 2), ("show_content", 2),
    ("claim", 10), ("submitted", 7), ("ended", 8), ("tell_content", 3),
    ("work", 24), ("expire", 3), ("purge", 3), ("history", 2), ("sweep", 2), ("pass_time", 11),
    ("copy", 1.5), ("foreign_volume", 0.3), ("spoil_tag", 1), ("lose_row", 0.7), ("weather", 4), ("restart", 1),
)  # fmt: skip
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


class Candle(Fuse):
    """A fuse that burns for some of the time only."""

    def __init__(self) -> None:
        super().__init__(None)

    @contextmanager
    def burning(self, instant: int | None) -> Iterator[None]:
        """What is done meanwhile dies at the instant; once dead, it stays dead."""
        self._left = instant
        yield
        self._left = None


class Process:
    """One run of the service: its own application, its loops turned by hand."""

    def __init__(self, settings: DisksSettings, clock: Callable[[], datetime]) -> None:
        self.fuse = Candle()
        self._base = Foundation.open("disks", settings)
        self._database = MortalDatabase(settings.database_url, self.fuse)
        # only the service's own parts are mortal: what every service has beside them passes no instants
        mortal = replace(self._base, database=self._database)
        self.parts: ServiceParts = service_parts(mortal, settings, MortalEc2(settings, self.fuse), clock)
        self.loops: dict[str, Loop] = {loop.name: loop for loop in self.parts.loops}
        self._stop = asyncio.Event()
        self._holding: asyncio.Task[None] | None = None
        self.client = httpx.AsyncClient()

    async def start(self) -> None:
        """Serve."""
        app: Any = create_service_app(self._base, replace(self.parts, loops=(), workers=(), subscriptions=()))
        started = asyncio.Event()

        async def hold() -> None:
            async with app.lifespan():
                started.set()
                await self._stop.wait()

        self._holding = asyncio.create_task(hold())
        await started.wait()
        await self.client.aclose()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://disks.local")

    async def stop(self) -> None:
        """Stop serving."""
        await self.client.aclose()
        self._stop.set()
        if self._holding is not None:
            await self._holding
        for loop in self.loops.values():
            if loop._at_end is not None:
                loop._at_end()
        await self._database.close()

    async def turn(self, name: str) -> None:
        """One turn of a loop."""
        await self.loops[name]._turn()

    async def work(self) -> None:
        """Work the operations that are due."""
        (worker,) = self.parts.workers
        await worker.work_due()

    async def handle(self, data: Any) -> None:
        """Take an event of a job, as the consumer does."""
        handler = next(one.handler for one in self.parts.subscriptions if one.event is type(data))
        async with self._database.transaction() as tx:
            await handler(tx, data, cloud_event(data))

    async def claim(self, request: ClaimRequest) -> ClaimReply:
        """Take a claim without NATS, which would have the death of a handler to itself."""
        endpoint = next(one for one in self.parts.rpc if one.request is ClaimRequest)
        reply: ClaimReply = await endpoint.handler(request)
        return reply


class Walk:
    """One walk of two users."""

    def __init__(self, settings: DisksSettings, database: Database, cloud: Any, stand_in: Any, weather: Moods) -> None:
        self.settings = settings
        self.database = database
        self.cloud = cloud
        self.weather = weather
        self.auth = Auth(stand_in)
        self.jobs = Jobs(stand_in)
        self.model = Model(RULES, BEGINNING)
        self.users: list[User] = []
        self.tally: Counter[str] = Counter()
        self.story: list[str] = []
        self.copies: dict[str, dict[str, str]] = {}
        """Others' copies of our snapshots: tags by AWS's id."""
        self.foreign: set[str] = set()
        """Others' volumes with tags like ours."""
        self.process = Process(settings, self.clock)
        self.failures = 0

    def clock(self) -> datetime:
        return self.model.now

    # ------------------------------------------------------------ the way

    async def begin(self) -> None:
        await self.auth.listen()
        self.users = [self.auth.add_user(), self.auth.add_user()]
        await self.start()

    async def start(self) -> None:
        await self.process.start()

        async def served() -> bool:
            return (await self.get(self.users[0], "")).status_code == 200

        await eventually(served, "the service serves", seconds=20)

    async def restart(self) -> None:
        await self.process.stop()
        self.process = Process(self.settings, self.clock)
        await self.start()

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

    async def look(self, *, everywhere: bool) -> None:
        """Hold what the service shows against the model."""
        for user in self.users:
            await self.look_at_list(user, include_deleted=True)
        if not everywhere:
            return
        for disk in self.model.disks:
            user = self.owner(disk)
            if disk.known and self.model.named(disk.user, disk.name) is disk:
                await self.look_at_points(disk)
                self.expect(await self.get(user, f"/{disk.name}/content"), 200, self.model.content(disk))

    async def settle(self) -> Findings:
        """Let everything end that is under way, and compare AWS, the tables and the model."""
        self.weather.clear()
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

    async def finish(self) -> None:
        for _ in range(_SETTLING_ROUNDS):
            self.model.now += timedelta(seconds=61)
            self.model.begin_purges()
            await self.turn("disk_purge")
            await self.process.work()
            await self.see_work()
            if not self.model.open_operations() and not await self.database.fetch_all(_OPEN):
                return
        left = [dict(row) for row in await self.database.fetch_all(_OPEN)]
        raise Divergence(f"the work does not end: {left}")

    async def compare_with_aws(self) -> None:
        volumes, taken = [], []
        for user in self.users:
            volumes += await volumes_of(self.cloud, user.user_id)
            taken += await snapshots_of_user(self.cloud, user.user_id)
        copies = {one["SnapshotId"]: _tags(one) for one in taken if one["SnapshotId"] in self.copies}
        if copies != self.copies:
            raise Divergence(f"others' copies were touched: {copies} are left of {self.copies}")
        foreign = {one["VolumeId"] for one in volumes} & self.foreign
        if foreign != self.foreign:
            raise Divergence(f"others' volumes were touched: {foreign} are left of {self.foreign}")
        volumes = [one for one in volumes if one["VolumeId"] not in self.foreign]
        own = [one for one in taken if one["SnapshotId"] not in self.copies]
        await self.compare_volumes(volumes)
        await self.compare_snapshots(own)

    async def compare_volumes(self, volumes: list[Any]) -> None:
        expected = {str(d.id): (d.size_gb, d.name, str(d.user)) for d in self.model.disks if d.state == AVAILABLE}
        found = {
            _tags(one)["gpudev:disk-id"]: (one["Size"], _tags(one)["Name"], _tags(one)["gpudev:user-id"])
            for one in volumes
        }
        rows = await self.database.fetch_all(_DISKS)
        ledger = {str(row["id"]): row["volume_id"] for row in rows if row["state"] == "available"}
        if found != expected or len(volumes) != len(expected):
            raise Divergence(f"volumes: AWS has {found} ({len(volumes)}), the model {expected}")
        if ledger != {_tags(one)["gpudev:disk-id"]: one["VolumeId"] for one in volumes}:
            raise Divergence(f"volumes: the ledger has {ledger}, AWS {volumes}")
        unsettled = [dict(row) for row in rows if row["state"] in {"creating", "purging"}]
        if unsettled:
            raise Divergence(f"disks are not settled: {unsettled}")

    async def compare_snapshots(self, taken: list[Any]) -> None:
        points = [p for disk in self.model.disks for p in disk.points if p.state in {COMPLETED, LOST}]
        expected = {str(p.id): (str(p.disk.id), str(p.disk.user), p.disk.name) for p in points if p.state == COMPLETED}
        orphans = {str(point.id) for point in points if point.state == LOST}
        found, left = {}, set()
        for one in taken:
            tags = _tags(one)
            if tags["gpudev:operation-id"] in orphans:
                left.add(tags["gpudev:operation-id"])
                continue
            found[tags["gpudev:operation-id"]] = (tags["gpudev:disk-id"], tags["gpudev:user-id"], tags["Name"])
        if found != expected or len(found) + len(left) != len(taken):
            raise Divergence(f"snapshots: AWS has {found} ({len(taken)}), the model {expected}")
        if left != orphans:
            raise Divergence(f"snapshots without a row: AWS has {left}, the model {orphans}")
        rows = await self.database.fetch_all(_POINTS)
        ledger = {str(row["id"]): row["snapshot_id"] for row in rows if row["status"] == "completed"}
        in_aws = {_tags(one)["gpudev:operation-id"]: one["SnapshotId"] for one in taken}
        if ledger != {key: in_aws[key] for key in found}:
            raise Divergence(f"snapshots: the ledger has {ledger}, AWS {in_aws}")

    async def findings(self) -> Findings:
        """What a sweep would say, and that it says nothing but the orphans that the walk has made."""
        self.model.now += timedelta(minutes=10)
        findings = await self.sweep()
        wrong = {
            name: value
            for name, value in msgspec.structs.asdict(findings).items()
            if value and not name.startswith("orphan")
        }
        if wrong or not self.foreign <= set(findings.orphan_volumes):
            raise Divergence(f"the sweep found {wrong}, and of {self.foreign} {findings.orphan_volumes}")
        return findings

    async def sweep(self) -> Findings:
        """Sweep for certain: a turn puts it off when AWS is not to be had."""
        ec2 = Ec2(region=REGION, endpoint_url=self.settings.aws_endpoint_url)
        sweeper = Sweeper(database=self.database, relay=Silent(), ec2=ec2, period_seconds=60, clock=self.clock)
        try:
            return await sweeper.sweep()
        finally:
            await ec2.close()

    async def clean(self) -> None:
        """Leave nothing behind."""
        await self.process.stop()
        for user in self.users:
            for one in await snapshots_of_user(self.cloud, user.user_id):
                await asyncio.to_thread(self.cloud.delete_snapshot, SnapshotId=one["SnapshotId"])
            for one in await volumes_of(self.cloud, user.user_id):
                await asyncio.to_thread(self.cloud.delete_volume, VolumeId=one["VolumeId"])
        await self.database.execute(_EMPTY)

    # ------------------------------------------------------------ how a step is taken

    def expect(self, answer: httpx.Response, status: int, fields: dict[str, Any] | None = None) -> None:
        if answer.status_code != status:
            raise Divergence(f"answered {answer.status_code} {answer.text}, not {status}")
        wrong = differences(answer.json(), fields or {})
        if wrong:
            raise Divergence(f"answered (told, expected): {wrong}")

    def owner(self, disk: Disk) -> User:
        return next(user for user in self.users if user.user_id == disk.user)

    async def get(self, user: User, path: str) -> httpx.Response:
        return await self.process.client.get(f"/v1/disks{path}", headers=user.headers)

    async def ask(
        self, step: Step, user: User, method: str, path: str, body: Any = None, *, rest: timedelta = timedelta(0)
    ) -> httpx.Response:
        """Ask; when the service dies of it, ask its heir again. Now and then a request is repeated anyway.

        Args:
            step: Of the walk.
            user: Who asks.
            method: HTTP's.
            path: Below /v1/disks.
            body: JSON; None: none.
            rest: Between a death and the repetition.
        """
        headers = dict(user.headers)
        repeated = step.dice[5] < 0.1
        if step.dies_at is not None or repeated:
            headers["Idempotency-Key"] = str(uuid4())

        async def send() -> httpx.Response:
            return await self.process.client.request(method, f"/v1/disks{path}", json=body, headers=headers)

        answer = await self.mortal(step, send, rest=rest)
        if repeated and answer.status_code == 200:
            again = await send()
            self.expect(again, 200, answer.json())
            assert again.headers["idempotent-replayed"] == "true"
            self.tally["request repeated"] += 1
        return answer

    async def mortal(
        self, step: Step, act: Callable[[], Awaitable[ChosenT]], *, rest: timedelta = timedelta(0)
    ) -> ChosenT:
        """Do it; when the service dies of it, have its heir do it again."""
        if step.dies_at is None:
            return await act()
        try:
            with self.process.fuse.burning(step.dies_at):
                return await act()
        except Killed:
            self.tally[f"death in {step.kind}"] += 1
            self.story[-1] += " (died)"
            fuse = self.process.fuse
            await eventually(lambda: not fuse.under_way, "what the dead had sent off is over", seconds=60)
            self.model.now += rest
            await self.restart()
            return await act()

    async def turn(self, name: str) -> None:
        await self.process.turn(name)

    async def work_due(self) -> None:
        await self.process.work()

    def chosen(self, dice: float, among: Sequence[ChosenT]) -> ChosenT:
        return among[int(dice * len(among))]

    def user(self, step: Step) -> User:
        return self.chosen(step.dice[0], self.users)

    def name(self, dice: float) -> str:
        """Any name."""
        return self.chosen(dice, NAMES)

    def name_of(self, user: User, dice: float) -> str:
        """Mostly of a disk that the user has, deleted ones included."""
        share, within = _split(dice, 0.8)
        known = [disk.name for disk in self.model.listed(user.user_id, include_deleted=True)]
        return self.chosen(within, known) if share and known else self.name(within)

    def free_name(self, user: User, dice: float) -> str:
        """Mostly one that no disk of the user has."""
        share, within = _split(dice, 0.7)
        taken = {disk.name for disk in self.model.listed(user.user_id, include_deleted=False)}
        free = [name for name in NAMES if name not in taken]
        return self.chosen(within, free) if share and free else self.name(within)

    # ------------------------------------------------------------ what users ask

    async def do_create(self, step: Step) -> str:
        user = self.user(step)
        name = self.free_name(user, step.dice[1])
        size = self.chosen(step.dice[2], (None, None, 10, 10, 10, 20, 20, 30, 30, 50, 100, 9, 16385))
        source = self._source(user, step.dice[3])
        body: dict[str, Any] = {"disk_name": name}
        if step.dice[4] < 0.03:
            body["disk_name"] = self.chosen(step.dice[4] / 0.03, ("", "a b", "a" * 64, "ä", "a\n"))
        if size is not None:
            body["size_gb"] = size
        if source is not None:
            body["from_snapshot"] = str(source)
        status, made = self.model.judge_create(user.user_id, body["disk_name"], size, source)
        answer = await self.ask(step, user, "POST", "", body)
        self.expect(answer, status, {"disk_name": name, "action": "create"} if status == 200 else None)
        if status == 200:
            shown = await self.get(user, f"/{name}")
            self.model.create(
                disk_id=UUID(shown.json()["disk_id"]), operation_id=UUID(answer.json()["operation_id"]),
                user=user.user_id, name=name, size_gb=made, source=source,
            )  # fmt: skip
        return f"{status} {user.username} {body}"

    def _source(self, user: User, dice: float) -> UUID | None:
        """Mostly none; a snapshot of one's own or of the other's, or one that never was."""
        if dice < 0.5:
            return None
        if dice > 0.98:
            return uuid4()
        anything = dice > 0.85
        points = [
            point
            for disk in self.model.disks
            for point in disk.points
            if anything or (disk.user == user.user_id and disk.known and point.shown)
        ]
        return self.chosen((dice * 7) % 1, points).id if points else None

    async def do_delete(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        status = self.model.judge_idle(user.user_id, name)
        answer = await self.ask(step, user, "DELETE", f"/{name}")
        self.expect(answer, status)
        if status == 200:
            disk = self.model.delete(user.user_id, name, UUID(answer.json()["operation_id"]))
            day = str(disk.delete_date)
            assert answer.json()["message"].endswith(f"Will be deleted on {day}"), answer.text
        return f"{status} {user.username} {name}"

    async def do_restore(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        status = self.model.judge_restore(user.user_id, name)
        taken = self.model.name_is_taken_since(user.user_id, name)
        answer = await self.ask(step, user, "POST", f"/{name}/restore")
        self.expect(answer, status)
        assert taken == (f"named '{name}' since" in answer.text), answer.text
        if status == 200:
            self.model.restore(user.user_id, name, UUID(answer.json()["operation_id"]))
        return f"{status} {user.username} {name}"

    async def do_rename(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        new_name = self.free_name(user, step.dice[2])
        if step.dice[3] < 0.05:
            new_name = self.chosen(step.dice[3] / 0.05, ("", "x y", "z" * 64, "é", "a\n"))
        status = self.model.judge_rename(user.user_id, name, new_name)
        rest = _WORKER_LEASE + timedelta(seconds=_RENAME_SECONDS)
        answer = await self.ask(step, user, "POST", f"/{name}/rename", {"new_name": new_name}, rest=rest)
        self.expect(answer, status, {"old_name": name, "new_name": new_name} if status == 200 else None)
        if status == 200:
            disk = self.model.rename(user.user_id, name, new_name, UUID(answer.json()["operation_id"]))
            self._check_report(disk, answer.json())
            await self.see_work()
        return f"{status} {user.username} {name} to {new_name}"

    def _check_report(self, disk: Disk, told: dict[str, Any]) -> None:
        """Every snapshot is counted, unless the answer says that not all was done."""
        least = 0 if "errors" in told else len(disk.kept)
        most = sum(point.shown and point.state != FAILED for point in disk.points)
        assert least <= told["snapshots_updated"] <= most, (told, least, most)
        self.tally["rename with errors" if "errors" in told else "rename without errors"] += 1

    async def do_snapshot(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        status = self.model.judge_idle(user.user_id, name)
        answer = await self.ask(step, user, "POST", f"/{name}/snapshots")
        self.expect(answer, status)
        if status == 200:
            disk = self.model.named(user.user_id, name)
            assert disk is not None
            self.model.snapshot(disk, UUID(answer.json()["operation_id"]))
        return f"{status} {user.username} {name}"

    async def do_show(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        disk = self.model.named(user.user_id, name)
        answer = await self.get(user, f"/{name}")
        if disk is None:
            self.expect(answer, 404)
        else:
            self.expect(answer, 200, {**self.model.info(disk), "user_id": user.username})
        return f"{answer.status_code} {user.username} {name}"

    async def do_list(self, step: Step) -> str:
        user = self.user(step)
        await self.look_at_list(user, include_deleted=step.dice[1] < 0.5, limit=1 + int(step.dice[2] * 5))
        return f"200 {user.username}"

    async def do_show_operation(self, step: Step) -> str:
        user = self.user(step)
        if not self.model.operations:
            return _NOTHING
        operation = self.chosen(step.dice[1], list(self.model.operations.values()))
        names = sorted(self.model.names(operation.disk))
        name = self.chosen(step.dice[2], [*names, *names, "never"])
        expected = self.model.operation(user.user_id, name, operation.id)
        answer = await self.get(user, f"/{name}/operations/{operation.id}")
        self.expect(answer, 404 if expected is None else 200, expected)
        return f"{answer.status_code} {user.username} {name} {operation.action} {operation.id}"

    async def do_show_points(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        disk = self.model.named(user.user_id, name)
        if disk is None:
            self.expect(await self.get(user, f"/{name}/snapshots"), 404)
            return f"404 {user.username} {name}"
        await self.look_at_points(disk)
        return f"200 {user.username} {name}"

    async def do_show_content(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        disk = self.model.named(user.user_id, name)
        answer = await self.get(user, f"/{name}/content")
        if disk is None:
            self.expect(answer, 404)
            return f"404 {user.username} {name}"
        self.expect(answer, 200, self.model.content(disk))
        return f"200 {user.username} {name}"

    async def look_at_list(self, user: User, *, include_deleted: bool, limit: int = 500) -> None:
        expected = self.model.listed(user.user_id, include_deleted=include_deleted)
        answer = await self.get(user, f"?include_deleted={str(include_deleted).lower()}&limit={limit}")
        self.expect(answer, 200, {"total": len(expected)})
        told = answer.json()["disks"]
        for disk, shown in zip(expected[:limit], told, strict=True):
            wrong = differences(shown, self.model.info(disk))
            if wrong:
                raise Divergence(f"{user.username}'s list shows of {disk.name} (told, expected): {wrong}")

    async def look_at_points(self, disk: Disk) -> None:
        answer = await self.get(self.owner(disk), f"/{disk.name}/snapshots?limit=500")
        expected = self.model.points(disk)
        self.expect(answer, 200, {"total": len(expected)})
        for point, shown in zip(expected, answer.json()["snapshots"], strict=True):
            wrong = differences(shown, point)
            if wrong:
                raise Divergence(f"a snapshot of {disk.name} (told, expected): {wrong}")

    # ------------------------------------------------------------ what jobs do

    async def do_claim(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        job = Job(uuid4(), user.user_id)
        if step.dice[2] < 0.25 and self.model.jobs:
            job = self.chosen(step.dice[2] / 0.25, self.model.jobs[-8:])
        else:
            self.model.jobs.append(job)
        size = self.chosen(step.dice[3], (None, None, None, None, None, None, None, 10, 20, 9))
        if step.dice[4] < 0.03:
            name = "no name"
        expected, makes = self.model.judge_claim(job, user.user_id, name, size)
        request = ClaimRequest(
            user_id=user.user_id, username=user.username, disk_name=name, job_id=job.id, size_gb=size
        )
        reply = await self._claim(step, user, request)
        kind = "claimed" if reply.refusal is None else reply.refusal.kind
        if kind != expected:
            raise Divergence(f"claim: {reply}, not {expected}")
        if reply.claim is not None:
            await self._claimed(job, user, reply.claim, makes=makes)
        return f"{kind} {user.username} {name} {size} for job {job.id}"

    async def _claim(self, step: Step, user: User, request: ClaimRequest) -> ClaimReply:
        if step.dies_at is None:
            return await self.jobs.claim(user, request.disk_name, job_id=request.job_id, size_gb=request.size_gb)
        return await self.mortal(step, lambda: self.process.claim(request))

    async def _claimed(self, job: Job, user: User, claim: Any, *, makes: bool) -> None:
        disk = next((one for one in self.model.disks if one.id == claim.disk_id), None)
        if (disk is None) != makes:
            raise Divergence(f"claim: {claim} of {disk}")
        if disk is None:
            (row,) = await self.database.fetch_all(_OPERATION_OF, disk_id=claim.disk_id)
            disk = self.model.create(
                disk_id=claim.disk_id, operation_id=row["id"], user=user.user_id, name=claim.disk_name,
                size_gb=claim.size_gb,
            )  # fmt: skip
        job.user = user.user_id
        self.model.claim(job, disk)
        told = (claim.disk_name, claim.size_gb, claim.ready)
        if told != (disk.name, disk.size_gb, disk.ready):
            raise Divergence(f"claim: told {told}, not {(disk.name, disk.size_gb, disk.ready)}")

    def _job(self, dice: float, *states: str) -> Job | None:
        """A job, mostly one whose claim is in one of these states."""
        share, within = _split(dice, 0.8)
        jobs = [job for job in self.model.jobs[-20:] if job.disk is not None]
        likely = [job for job in jobs if job.state in states]
        if share and likely:
            return self.chosen(within, likely)
        return self.chosen(within, jobs) if jobs else None

    async def do_submitted(self, step: Step) -> str:
        job = self._job(step.dice[1], PROVISIONAL, DROPPED)
        if job is None or job.disk is None or job.state is None:
            return _NOTHING
        owner = next(user for user in self.users if user.user_id == job.user)
        event = job_submitted(owner, job.id, job.disk.id)
        await self._deliver(step, event)
        self.model.submitted(job)
        return f"{job.state} job {job.id} on {job.disk.name}"

    async def do_ended(self, step: Step) -> str:
        job = self._job(step.dice[1], PROVISIONAL, CONFIRMED)
        if job is None or job.disk is None or job.state is None:
            return _NOTHING
        disk, used = job.disk, step.dice[2] < 0.7
        owner = next(user for user in self.users if user.user_id == job.user)
        await self._deliver(step, job_ended(owner, job.id, 1 if used else 0))
        if not self.model.ended(job, used=used):
            return f"free job {job.id} on {disk.name}"
        listed = (await self.get(owner, f"/{disk.name}/snapshots?limit=500")).json()["snapshots"]
        taken = [one for one in listed if one["reservation_id"] == str(job.id)]
        if len(taken) != 1:
            raise Divergence(f"{len(taken)} snapshots after job {job.id}")
        self.model.snapshot(disk, UUID(taken[0]["snapshot_id"]), job.id)
        return f"snapshot {taken[0]['snapshot_id']} of {disk.name} after job {job.id}"

    async def _deliver(self, step: Step, event: Any) -> None:
        await self.mortal(step, lambda: self.process.handle(event))
        if step.dice[5] < 0.2:
            # the broker delivers at least once
            await self.process.handle(event)

    async def do_tell_content(self, step: Step) -> str:
        job = self._job(step.dice[1], PROVISIONAL, CONFIRMED)
        if job is None or not self.model.disks:
            return _NOTHING
        disk = job.disk if step.dice[2] < 0.8 else self.chosen(step.dice[3], self.model.disks)
        assert disk is not None
        size = int(step.dice[4] * 1e9)
        listing = Listing(size, [ListingEntry("runs", "directory", size)])
        # told with the time of the walk
        kept = await self._tell(job.id, disk.id, listing)
        entries = [{"path": "runs", "type": "directory", "size_bytes": size}]
        expected = self.model.tell_content(job, disk, {"size_bytes": size, "entries": entries})
        if kept != expected:
            raise Divergence(f"listing kept: {kept}, not {expected}")
        return f"{'kept' if kept else 'refused'} job {job.id} on {disk.name}"

    async def _tell(self, job_id: UUID, disk_id: UUID, listing: Listing) -> bool:
        endpoint = next(one for one in self.process.parts.rpc if one.request is not ClaimRequest)
        report = endpoint.request(job_id=job_id, disk_id=disk_id, epoch=1, taken_at=self.model.now, listing=listing)
        reply = await endpoint.handler(report)
        return bool(reply.stored)

    # ------------------------------------------------------------ what the service does by itself

    async def do_work(self, step: Step) -> str:
        before = len(self.model.open_operations())
        await self.mortal(step, self.work_due)
        await self.see_work()
        return f"{'ended' if len(self.model.open_operations()) < before else 'went on'} {before} were open"

    async def see_work(self) -> None:
        """Ask how each open operation goes, and tell the model what has ended."""
        ended: list[tuple[Operation, str]] = []
        for operation in self.model.open_operations():
            user = self.owner(operation.disk)
            answer = await self.get(user, f"/{operation.disk.name}/operations/{operation.id}")
            self.expect(answer, 200, {"operation_id": str(operation.id), "action": operation.action})
            told = answer.json()
            if told["completed"]:
                ended.append((operation, told["status"]))
                self.tally[f"{operation.action} {told['status']}"] += 1
                self.failures += told["status"] == "failed"
        if self.failures > self.weather.refused:
            raise Divergence(f"{self.failures} operations failed, {self.weather.refused} were refused: {ended}")
        for point in self.model.end_operations(ended):
            await self._decide(point)
        for disk in [one for one in self.model.disks if one.state == PURGING]:
            await self._see_purge(disk)

    async def _decide(self, point: Point) -> None:
        """See what has become of a snapshot of which either may be."""
        if point.id in await self._kept_rows():
            point.state = COMPLETED

    async def _kept_rows(self) -> dict[UUID, datetime]:
        """The completed snapshots of the tables: the API hides those of a disk whose name another has."""
        rows = await self.database.fetch_all(_POINTS)
        return {row["id"]: row["created_at"] for row in rows if row["status"] == "completed"}

    async def _see_purge(self, disk: Disk) -> None:
        answer = await self.get(self.owner(disk), "?include_deleted=true&limit=500")
        if str(disk.id) in {one["disk_id"] for one in answer.json()["disks"]}:
            return
        self.model.purged(disk)
        self.tally["disk purged"] += 1
        filters = [{"Name": "tag:gpudev:disk-id", "Values": [str(disk.id)]}]
        volumes = (await asyncio.to_thread(self.cloud.describe_volumes, Filters=filters))["Volumes"]
        taken = (await asyncio.to_thread(self.cloud.describe_snapshots, Filters=filters))["Snapshots"]
        lost = {str(point.id) for point in disk.points if point.state == LOST}
        left = [one["VolumeId"] for one in volumes if one["VolumeId"] not in self.foreign]
        left += [
            one["SnapshotId"]
            for one in taken
            if one["SnapshotId"] not in self.copies and _tags(one)["gpudev:operation-id"] not in lost
        ]
        if left:
            raise Divergence(f"{disk.id} is purged, and {left} are left of it")

    async def do_expire(self, step: Step) -> str:
        await self.mortal(step, lambda: self.turn("claim_expiry"))
        self.model.expire_claims()
        return "done"

    async def do_purge(self, step: Step) -> str:
        await self.mortal(step, lambda: self.turn("disk_purge"))
        self.model.begin_purges()
        purging = sum(disk.state == PURGING for disk in self.model.disks)
        return f"{'purging' if purging else 'nothing'} {purging}"

    async def do_history(self, step: Step) -> str:
        await self.mortal(step, lambda: self.turn("disk_history"))
        before = len(self.model.operations)
        self.model.pass_history()
        return f"{'forgot' if len(self.model.operations) < before else 'done'}"

    async def do_sweep(self, step: Step) -> str:
        await self.mortal(step, lambda: self.turn("ebs_sweeper"))
        return f"{'adopted' if await self.see_adoptions() else 'done'}"

    async def see_adoptions(self, *, certain: bool = False) -> int:
        """Tell the model of lost snapshots that are there again; `certain`: all that can be must be."""
        lost = [point for disk in self.model.disks for point in disk.points if point.state == LOST]
        kept = await self._kept_rows() if lost else {}
        for point in lost:
            if point.id in kept:
                self.model.adopt(point, kept[point.id])
            elif certain and point.disk.state == AVAILABLE:
                raise Divergence(f"never adopted: {point.id}")
        return len(lost) - sum(point.state == LOST for point in lost)

    # ------------------------------------------------------------ what the world does

    async def do_pass_time(self, step: Step) -> str:
        spans = (
            *(timedelta(seconds=seconds) for seconds in (1, 5, 10, 30, 70)),
            timedelta(seconds=61), timedelta(hours=3), timedelta(days=1), timedelta(days=4), timedelta(weeks=1),
            timedelta(days=31),
        )  # fmt: skip
        span = timedelta(days=91) if step.dice[2] < 0.03 else self.chosen(step.dice[1], spans)
        self.model.now += span
        return f"{'long' if span >= timedelta(days=1) else 'short'} {span}"

    async def do_weather(self, step: Step) -> str:
        kind = self.chosen(step.dice[1], ("throttle", "throttle", "lose", "lose", "refuse", "down", "clear"))
        actions: tuple[str, ...] = ("CreateVolume", "CreateSnapshot", "CreateTags")
        if kind != "refuse":
            actions += ("DeleteVolume", "DeleteSnapshot", "DescribeSnapshots", "DescribeVolumes")
        action = self.chosen(step.dice[2], actions)
        if kind == "clear":
            self.weather.clear()
        else:
            self.weather.change(kind, "" if kind == "down" else action, 1 + int(step.dice[3] * 3))
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
            return _NOTHING
        copy = await asyncio.to_thread(
            self.cloud.copy_snapshot, SourceSnapshotId=one["SnapshotId"], SourceRegion=REGION
        )
        copy_id = copy["SnapshotId"]
        await asyncio.to_thread(self.cloud.create_tags, Resources=[copy_id], Tags=one["Tags"])
        self.copies[copy_id] = _tags(one)
        return f"made {copy_id} of {one['SnapshotId']}"

    async def do_foreign_volume(self, step: Step) -> str:
        """Somebody has a volume with tags like ours, of no disk of ours."""
        tags = {"gpudev:disk-id": str(uuid4()), "gpudev:user-id": str(self.user(step).user_id), "Name": "theirs"}
        pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
        made = await asyncio.to_thread(
            self.cloud.create_volume, AvailabilityZone=_ZONE, Size=10,
            TagSpecifications=[{"ResourceType": "volume", "Tags": pairs}],
        )  # fmt: skip
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
            return _NOTHING
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
            return _NOTHING
        point = self.chosen(step.dice[1], points)
        await self.database.execute(_LOSE_POINT, id=point.id)
        await self.database.execute(_LOSE_OPERATION, id=point.id)
        self.model.lose(point)
        return f"done {point.id} of {point.disk.name}"


_OPERATION_OF = Statement(
    sa.select(operations.c.id).where(operations.c.disk_id == sa.bindparam("disk_id", type_=sa.Uuid))
)


def _split(dice: float, share: float) -> tuple[bool, float]:
    """One throw as two: whether it is within the share, and where in its part."""
    return (True, dice / share) if dice < share else (False, (dice - share) / (1 - share))


def _tags(resource: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource["Tags"]}


@asynccontextmanager
async def walking(settings: DisksSettings, database: Database, moto: MotoServer) -> AsyncIterator[Walk]:
    """A walk that is ready for its first step."""
    weather = Moods()
    endpoint = settings.aws_endpoint_url
    assert endpoint is not None
    await database.execute(_EMPTY)
    stand_in = await nats.connect(stand_in_url(settings.nats_url))
    try:
        async with before_aws(endpoint, weather) as url:
            there = msgspec.structs.replace(
                settings, aws_endpoint_url=url, aws_region=REGION, availability_zone=_ZONE,
                max_disks_per_user=RULES.disks, max_disk_gb_per_user=RULES.gb, snapshots_newest=RULES.newest,
                snapshots_weeks=RULES.weeks, rename_seconds=_RENAME_SECONDS,
                disk_retention_days=RULES.retention / timedelta(days=1), claim_seconds=RULES.claim.total_seconds(),
                log_level="critical",
            )  # fmt: skip
            walk = Walk(there, database, moto.client("ec2", region=REGION), stand_in, weather)
            await walk.begin()
            try:
                yield walk
            finally:
                await walk.clean()
    finally:
        await stand_in.close()


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
        return one.tally + one.weather.played
