"""Times in answers have one form."""

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest

from services.auth import schemas as auth
from services.capacity import schemas as capacity
from services.disks import schemas as disks
from services.jobs.schemas import answers as jobs
from shared.web import health
from shared.web.response import Answer

MODULES = (auth, jobs, disks, capacity, health)


class Sample(Answer, frozen=True, kw_only=True):
    at: datetime
    ended_at: datetime | None = None


def wire_structs() -> Iterator[type[msgspec.Struct]]:
    for module in MODULES:
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, msgspec.Struct) and found.__module__ == module.__name__:
                yield found


def test_an_answers_times_are_whole_seconds_and_never_later() -> None:
    moment = datetime(2026, 1, 20, 18, 30, 0, 999_999, tzinfo=UTC)
    assert msgspec.json.encode(Sample(at=moment)) == b'{"at":"2026-01-20T18:30:00Z","ended_at":null}'
    assert msgspec.json.encode(Sample(at=moment, ended_at=moment)).count(b"18:30:00Z") == 2


@pytest.mark.parametrize("struct", list(wire_structs()), ids=lambda struct: struct.__name__)
def test_whatever_tells_a_time_on_the_wire_is_an_answer(struct: type[msgspec.Struct]) -> None:
    times = [field.name for field in msgspec.structs.fields(struct) if datetime in {field.type, *get_args(field.type)}]
    assert not times or issubclass(struct, Answer)
