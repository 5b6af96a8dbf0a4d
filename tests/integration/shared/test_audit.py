"""Entries of the audit stand and fall with their change, are found by what one asks, and leave after a year."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import sqlalchemy as sa

from shared.audit import KEPT, Act, audit_endpoint, begin_act, purge_audit, record_act
from shared.contracts.audit import AuditEntry, AuditObject, AuditPosition, AuditQuery
from shared.database import Database, Statement, Transaction
from shared.database.purge import BITE
from shared.encryption import Cipher
from shared.idempotency import IdempotencyKey, Outcome, idempotent
from shared.request_context import begin_request
from tests.support.harness import new_secret_keys

NOW = datetime(2026, 1, 20, 18, 30, tzinfo=UTC)
ANN = Act(action="cancel_job", address="198.51.100.7", user_id=1, username="ann", key_prefix="gpudev_k")
_FILL = Statement(
    sa.text(
        "INSERT INTO audit (at, action, object_kind, object_id) "
        "SELECT :at, 'a', 'job', 'x' FROM generate_series(1, CAST(:number AS integer))"
    ).bindparams(sa.bindparam("at", type_=sa.DateTime(timezone=True)))
)


class Done(msgspec.Struct, frozen=True):
    job_id: str

    def audited(self) -> list[AuditObject]:
        return [AuditObject("job", self.job_id, "training")]


@dataclass
class Service:
    database: Database
    cipher: Cipher

    async def change(self, job_id: str, *, act: Act | None = ANN, key: str | None = None) -> Outcome[Done]:
        """As a request of `act` does it, in a task of its own."""

        async def effect(_: Transaction) -> Done:
            if job_id == "refused":
                raise ValueError(job_id)
            return Done(job_id)

        async def request() -> Outcome[Done]:
            begin_request("r-1")
            if act is not None:
                begin_act(act)
            given = None if key is None else IdempotencyKey(1, key, b"")
            return await idempotent(self, effect, key=given, answer_type=Done, now=NOW, audit=Done.audited)

        return await asyncio.create_task(request())

    async def find(self, **asked: object) -> list[AuditEntry]:
        """Entries, newest first."""
        query = AuditQuery(**{"limit": 100, **asked})  # type: ignore[arg-type]
        return (await audit_endpoint(self.database)(query)).entries


@pytest.fixture
async def service(harness_dsn: str) -> AsyncIterator[Service]:
    database = Database(harness_dsn, pool_size=3)
    yield Service(database, Cipher(new_secret_keys()))
    await database.close()


async def test_an_entry_says_who_did_what_to_what_from_where_and_when(service: Service) -> None:
    await service.change("one")
    assert await service.find() == [
        AuditEntry(
            id=1,
            at=NOW,
            action="cancel_job",
            user_id=1,
            username="ann",
            key_prefix="gpudev_k",
            address="198.51.100.7",
            object_kind="job",
            object_id="one",
            object_name="training",
            request_id="r-1",
        )
    ]


async def test_what_was_refused_and_what_was_repeated_leave_no_entry(service: Service) -> None:
    with pytest.raises(ValueError, match="refused"):
        await service.change("refused")
    for replayed in (False, True):
        assert (await service.change("one", key="k")).replayed == replayed
    assert [entry.object_id for entry in await service.find()] == ["one"]


async def test_what_the_service_does_by_itself_is_no_entry(service: Service) -> None:
    await service.change("one", act=None)
    assert await service.find() == []


async def test_an_entry_goes_with_its_transaction(service: Service) -> None:
    begin_act(ANN)

    async def fail() -> None:
        async with service.database.transaction() as transaction:
            await record_act(transaction, [AuditObject("job", "one")], now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await service.find() == []


async def test_entries_are_found_by_user_action_object_and_time(service: Service) -> None:
    bob = msgspec.structs.replace(ANN, username="bob", action="extend_job")
    await service.change("one")
    await service.change("two", act=bob)
    assert [entry.object_id for entry in await service.find()] == ["two", "one"]
    for asked, wanted in (
        ({"username": "bob"}, ["two"]),
        ({"action": "cancel_job"}, ["one"]),
        ({"object": "two"}, ["two"]),
        ({"object": "training"}, ["two", "one"]),
        ({"object": "three"}, []),
        ({"since": NOW}, ["two", "one"]),
        ({"since": NOW + timedelta(seconds=1)}, []),
        ({"until": NOW}, []),
        ({"until": NOW + timedelta(seconds=1), "username": "ann", "action": "cancel_job"}, ["one"]),
        ({"limit": 1}, ["two"]),
        ({"before": AuditPosition(NOW, 2)}, ["one"]),
        ({"before": AuditPosition(NOW, 0)}, []),
    ):
        assert [entry.object_id for entry in await service.find(**asked)] == wanted, asked


async def test_entries_leave_after_a_year_in_small_bites(service: Service) -> None:
    await service.database.execute(_FILL, at=NOW - KEPT - timedelta(seconds=1), number=21 * BITE)
    await service.database.execute(_FILL, at=NOW - KEPT, number=2)
    assert await purge_audit(service.database, NOW), "a turn of a loop does not delete so many"
    assert not await purge_audit(service.database, NOW)
    assert len(await service.find()) == 2
