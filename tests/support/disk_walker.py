"""Who walks over the API of disks: the running service, the model beside it, and how a step is taken at all."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from services.disks.settings import DisksSettings
from shared.database import Database
from tests.support.aws_faults import CallFaults
from tests.support.crash import Crash
from tests.support.disk_model import Disk, Model, Rules, differences
from tests.support.disk_process import ServiceProcess
from tests.support.disks import Auth, Jobs, User
from tests.support.harness import eventually

ChosenT = TypeVar("ChosenT")

BEGINNING = datetime(2030, 1, 7, 9, tzinfo=UTC)
"""A Monday, later than any clock's: nothing that the walk writes is old to what reads the real one."""
RULES = Rules(disks=5, gb=300, newest=3, weeks=3, retention=timedelta(days=30), claim=timedelta(seconds=60))
REGION = "eu-west-1"
"""The walks' own: a sweep reads all that is in its region, and other tests leave thousands of snapshots."""
ZONE = "eu-west-1a"
NAMES = ("a", "b", "c", "d", "e", "f", "g")
WORKER_LEASE = timedelta(seconds=9)
RENAME_SECONDS = 0.4
NOTHING = "none"


class Divergence(AssertionError):
    """The service did other than the model."""


@dataclass(frozen=True)
class Step:
    """What is to be done, with the dice for everything that it leaves open."""

    kind: str
    dice: tuple[float, ...]
    dies_at: int | None
    """Instant of the service's death in the midst of it; None: it lives."""


class Walker:
    """The service, its two users, and what they should see of it."""

    def __init__(
        self, settings: DisksSettings, database: Database, cloud: Any, stand_in: Any, faults: CallFaults
    ) -> None:
        self.settings = settings
        self.database = database
        self.cloud = cloud
        self.faults = faults
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
        self.process = ServiceProcess(settings, self.clock)
        self.failures = 0

    def clock(self) -> datetime:
        return self.model.now

    async def begin(self) -> None:
        await self.auth.listen()
        self.users = [self.auth.add_user(), self.auth.add_user()]
        await self.start()

    async def start(self) -> None:
        await self.process.start()

        async def served() -> bool:
            return (await self.get(self.users[0], "")).status_code == 200

        await eventually(served, "the service serves")

    async def restart(self) -> None:
        await self.process.stop()
        self.process = ServiceProcess(self.settings, self.clock)
        await self.start()

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

        answer = await self.survive(step, send, rest=rest)
        if repeated and answer.status_code == 200:
            again = await send()
            self.expect(again, 200, answer.json())
            assert again.headers["idempotent-replayed"] == "true"
            self.tally["request repeated"] += 1
        return answer

    async def survive(
        self, step: Step, act: Callable[[], Awaitable[ChosenT]], *, rest: timedelta = timedelta(0)
    ) -> ChosenT:
        """Do it; when the service dies of it, have its heir do it again."""
        if step.dies_at is None:
            return await act()
        try:
            with self.process.points.within(step.dies_at):
                return await act()
        except Crash:
            self.tally[f"death in {step.kind}"] += 1
            self.story[-1] += " (died)"
            points = self.process.points
            await eventually(lambda: not points.under_way, "what the dead had sent off is over")
            self.model.now += rest
            await self.restart()
            return await act()

    async def turn(self, name: str) -> None:
        await self.process.turn(name)

    def chosen(self, dice: float, among: Sequence[ChosenT]) -> ChosenT:
        return among[int(dice * len(among))]

    def user(self, step: Step) -> User:
        return self.chosen(step.dice[0], self.users)

    def name(self, dice: float) -> str:
        """Any name."""
        return self.chosen(dice, NAMES)

    def name_of(self, user: User, dice: float) -> str:
        """Mostly of a disk that the user has, deleted ones included."""
        share, within = split_dice(dice, 0.8)
        known = [disk.name for disk in self.model.listed(user.user_id, include_deleted=True)]
        return self.chosen(within, known) if share and known else self.name(within)

    def free_name(self, user: User, dice: float) -> str:
        """Mostly one that no disk of the user has."""
        share, within = split_dice(dice, 0.7)
        taken = {disk.name for disk in self.model.listed(user.user_id, include_deleted=False)}
        free = [name for name in NAMES if name not in taken]
        return self.chosen(within, free) if share and free else self.name(within)


def split_dice(dice: float, share: float) -> tuple[bool, float]:
    """One throw as two: whether it is within the share, and where in its part."""
    return (True, dice / share) if dice < share else (False, (dice - share) / (1 - share))


def tags_of(resource: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource["Tags"]}
