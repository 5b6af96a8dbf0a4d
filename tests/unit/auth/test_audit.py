"""The entries of all services as one list: its pages together have each entry once, newest first."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.domain.audit import AuditPage, Cursor, ServiceEntry, merge
from shared.contracts.audit import AuditEntry, AuditPosition
from tests.support.audited import changing_routes

NOW = datetime(2026, 1, 20, 18, 30, 0, 123456, tzinfo=UTC)
NAMES = ("auth", "capacity", "disks", "jobs")


def entry(number: int, at: datetime) -> AuditEntry:
    return AuditEntry(
        id=number,
        at=at,
        action="cancel_job",
        user_id=1,
        username="ann",
        key_prefix=None,
        address=None,
        object_kind="job",
        object_id="1",
        object_name=None,
        request_id=None,
    )


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[AuditEntry]]:
    """Entries of each service; many of one moment, and of one service some with a time before that of an older id."""
    seconds = st.lists(st.integers(0, 3), max_size=8)
    return {
        name: [entry(number, NOW + timedelta(seconds=at)) for number, at in enumerate(draw(seconds), start=1)]
        for name in NAMES
    }


def read(table: list[AuditEntry], before: AuditPosition | None, limit: int) -> list[AuditEntry]:
    """What a service answers, as its SQL says."""
    found = [one for one in table if before is None or (one.at, one.id) < (before.at, before.id)]
    return sorted(found, key=lambda one: (one.at, one.id), reverse=True)[:limit]


def page(found: dict[str, list[AuditEntry]], after: Cursor | None, limit: int) -> AuditPage:
    answers = {
        name: read(table, after.position_in(name) if after else None, limit + 1) for name, table in found.items()
    }
    return merge(answers, limit)


@given(tables(), st.integers(1, 7))
def test_the_pages_together_have_each_entry_once_newest_first(found: dict[str, list[AuditEntry]], limit: int) -> None:
    told: list[ServiceEntry] = []
    after: Cursor | None = None
    while True:
        one = page(found, after, limit)
        told += one.entries
        if one.next is None:
            break
        assert len(one.entries) == limit
        after = Cursor.parse(str(one.next))
        assert after == one.next
    assert {(one.service, one.entry.id) for one in told} == {(s, e.id) for s, table in found.items() for e in table}
    assert len(told) == sum(map(len, found.values()))
    assert [one.entry.at for one in told] == sorted((one.entry.at for one in told), reverse=True)


@pytest.mark.parametrize(
    "text", ["", "x", "1-jobs", "-1-jobs-2", "1-jobs-x", "1-jobs-2 ", f"{10**18 - 1}-jobs-1", "1-J-2"]
)
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert Cursor.parse(text) is None


def test_capacity_has_no_route_that_changes_something() -> None:
    """The first one needs a walk over capacity's routes, as the other services have."""
    assert changing_routes("capacity") == set()
