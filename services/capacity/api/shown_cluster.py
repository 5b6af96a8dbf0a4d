"""What is free, and how busy the cluster is, as it is answered: made anew only when it says something else."""

from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

import msgspec

from services.capacity.context import Context
from services.capacity.domain.availability import Snapshot
from services.capacity.operations.read import SnapshotFacts, read_facts
from services.capacity.schemas import Availability, ClusterStatusBody
from shared.database.group_read import GroupRead
from shared.web.conditional import Encoded, digest

_NO_TIME = datetime.fromtimestamp(0, UTC)
AnswerT_co = TypeVar("AnswerT_co", bound=msgspec.Struct, covariant=True)


class _Answers(Protocol[AnswerT_co]):
    def of(self, snapshot: Snapshot, timestamp: datetime) -> AnswerT_co: ...


class _Shown(Generic[AnswerT_co]):
    """One kind of answer. Its last one is kept: the database says at each request whether it still holds.

    Its tag is of what it says, and not of when that was so: `timestamp` and `as_of` are left out.
    """

    def __init__(self, answers: _Answers[AnswerT_co]) -> None:
        self._answers = answers
        self._key: tuple[SnapshotFacts, datetime] | None = None
        self._encoded = Encoded(b"", "")

    def of(self, facts: SnapshotFacts, now: datetime) -> Encoded:
        as_of = None if facts.as_of is None else facts.as_of.replace(microsecond=0)
        key = (msgspec.structs.replace(facts, as_of=as_of), now.replace(microsecond=0))
        if key != self._key:
            snapshot = facts.snapshot()
            timeless = self._answers.of(msgspec.structs.replace(snapshot, as_of=None), _NO_TIME)
            tag = f'W/"{digest(msgspec.json.encode(timeless))}"'
            self._encoded = Encoded(msgspec.json.encode(self._answers.of(snapshot, now)), tag)
            self._key = key
        return self._encoded


class ShownCluster:
    """What the routes answer.

    Args:
        context: The service's.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._facts = GroupRead[None, SnapshotFacts](self._read_facts)
        self._availability = _Shown(Availability)
        self._status = _Shown(ClusterStatusBody)

    async def availability(self) -> Encoded:
        """GPUs of each type."""
        return self._availability.of(await self._facts.read(None), self._context.clock())

    async def status(self) -> Encoded:
        """The same counts, and the jobs by status."""
        return self._status.of(await self._facts.read(None), self._context.clock())

    async def _read_facts(self, _: object) -> SnapshotFacts:
        return await read_facts(self._context.database, self._context.known_fleet)
