"""Every statement that writes a state does to a row in each state what the table says, and nothing else."""

from collections.abc import Mapping
from contextlib import nullcontext
from enum import StrEnum
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from services.disks import storage
from services.disks.context import Context
from services.disks.domain.claim import CLAIM_TABLE, ClaimEvent
from services.disks.domain.facts import RenameRequested
from services.disks.domain.operation import OPERATION_TABLE, OperationEvent
from services.disks.domain.snapshot import SNAPSHOT_TABLE, SnapshotEvent
from services.disks.domain.state_tables import state_after
from services.disks.operations.create import insert_disk
from services.disks.operations.read import lock_disk, read_disk
from services.disks.operations.record import record_fact
from services.disks.settings import DisksSettings
from services.disks.storage.tables import claims, operations, snapshots
from shared.database import Database, Statement
from tests.support.disks import disks_context, events_of, new_disk, new_user_id, now

ID, DISK = "id of the row", "id of the disk"
"""Stand for what only the test knows."""


class Case:
    """A table of states, the rows that are in them, and what writes them."""

    def __init__(
        self,
        rules: Mapping[Any, Any],
        table: sa.Table,
        column: str,
        fields: dict[str, Any],
        statements: Mapping[Any, tuple[Statement, dict[str, Any]]],
    ) -> None:
        self.rules = rules
        kind: Any = type(next(iter(rules.values())).target)
        self.states = list(kind)
        self.statements = statements
        (key,) = table.primary_key.columns
        whole = {key.name: ID, "disk_id": DISK, "created_at": now(), "updated_at": now(), **fields}
        self.fields = whole
        names = [*whole, column]
        self.insert = Statement(sa.insert(table).values({name: sa.bindparam(name) for name in names}))
        self.read = Statement(sa.select(table.c[column]).where(key == sa.bindparam("id")))
        self.column = column


NAMED = {"job_id": ID, "disk_id": DISK}
HELD = {"operation_id": ID, "held_lease": 1}
CASES = [
    Case(
        SNAPSHOT_TABLE,
        snapshots,
        "status",
        {"size_gb": 10},
        {
            SnapshotEvent.BOUND: (storage.snapshots.BIND, {"id": ID, "aws_id": "snap-1", "name_tag": "data"}),
            SnapshotEvent.COMPLETED: (storage.snapshots.COMPLETE, {"id": ID}),
            SnapshotEvent.REFUSED: (storage.snapshots.FAIL, {"id": ID, "error": "no"}),
            SnapshotEvent.LET_GO: (storage.snapshots.SET_ALL_DELETING, {"disk_id": DISK}),
            SnapshotEvent.REMOVED: (storage.snapshots.SET_DELETED, {"id": ID}),
        },
    ),
    Case(
        OPERATION_TABLE,
        operations,
        "status",
        {"disk_name": "data", "action": "tag", "worked_until": now(), "lease": 1},
        {
            OperationEvent.LEASED: (storage.operations.LEASE_ONE, {"operation_id": ID, "worked_until": now()}),
            OperationEvent.POSTPONED: (storage.operations.POSTPONE, {**HELD, "worked_until": now(), "failures": 0}),
            OperationEvent.DONE: (storage.operations.COMPLETE, HELD),
            OperationEvent.REFUSED: (storage.operations.FAIL, {**HELD, "error": "no"}),
            OperationEvent.SUPERSEDED: (storage.operations.SUPERSEDE_TAGGING, {"disk_id": DISK}),
        },
    ),
    Case(
        CLAIM_TABLE,
        claims,
        "state",
        {"user_id": 1, "expires_at": now()},
        {
            ClaimEvent.ASKED: (storage.claims.TAKE_PROVISIONALLY, {**NAMED, "expires_at": now()}),
            ClaimEvent.SUBMITTED: (storage.claims.CONFIRM, NAMED),
            ClaimEvent.SUBMITTED_LATE: (storage.claims.TAKE_LATE, {**NAMED, "expires_at": now()}),
            ClaimEvent.ENDED: (storage.claims.RELEASE, {"job_id": ID}),
            ClaimEvent.ENDED_WITHOUT: (storage.claims.CLOSE_DROPPED, {"job_id": ID}),
            ClaimEvent.DISK_FAILED: (storage.claims.DROP_OF_DISK, {"disk_id": DISK}),
            ClaimEvent.EXPIRED: (storage.claims.DROP_EXPIRED, {}),
        },
    ),
]
PRODUCT = [
    pytest.param(case, state, event, id=f"{type(state).__name__}-{state}-{event}")
    for case in CASES
    for state, event in product(case.states, case.rules)
]


@pytest.fixture
async def context(disks_settings: DisksSettings, disks_database: Database) -> Context:
    return disks_context(disks_settings, disks_database)


async def a_disk(context: Context, user_id: int) -> UUID:
    new = new_disk(user_id)
    async with context.database.transaction() as tx:
        await insert_disk(tx, context, new)
    return new.disk_id


@pytest.mark.parametrize(("case", "state", "event"), PRODUCT)
async def test_a_statement_moves_a_row_as_its_table_says(
    context: Context, case: Case, state: StrEnum, event: StrEnum
) -> None:
    database, row_id, user_id = context.database, uuid4(), new_user_id()
    known = {ID: row_id, DISK: await a_disk(context, user_id)}

    def filled(values: dict[str, Any]) -> dict[str, Any]:
        return {name: known.get(value, value) if isinstance(value, str) else value for name, value in values.items()}

    fields = {**filled(case.fields), **({"user_id": user_id} if "user_id" in case.fields else {})}
    await database.execute(case.insert, **fields, **{case.column: state})
    statement, parameters = case.statements[event]
    at = {"now": now()} if "now" in statement._names else {}

    await database.fetch_all(statement, **filled(parameters), **at)

    assert await database.fetch_value(case.read, id=row_id) == (state_after(case.rules, state, event) or state)


async def test_what_is_written_of_a_disk_is_what_its_table_made_of_it_and_one_event(context: Context) -> None:
    disk_id = await a_disk(context, new_user_id())
    async with context.database.transaction() as tx:
        before = await lock_disk(tx, disk_id)
        fact = RenameRequested(operation_id=uuid4(), new_name="renamed", taken=False)
        after = await record_fact(tx, context, before, fact, now())

    assert after == await read_disk(context.database, disk_id)
    assert [event.sequence for event in await events_of(context.database, disk_id)] == [before.version + 1]


async def test_a_disk_that_was_not_locked_is_not_overwritten(context: Context) -> None:
    disk_id = await a_disk(context, new_user_id())
    stale = await read_disk(context.database, disk_id)
    for name, expected in (("first", True), ("second", False)):
        fact = RenameRequested(operation_id=uuid4(), new_name=name, taken=False)
        with nullcontext() if expected else pytest.raises(AssertionError):
            async with context.database.transaction() as tx:
                await record_fact(tx, context, stale, fact, now())

    assert (await read_disk(context.database, disk_id)).name == "first"
