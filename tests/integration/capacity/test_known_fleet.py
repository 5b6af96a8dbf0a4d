"""What is known of the fleet is read again after every change of it, and only then."""

from typing import Any

import pytest
import sqlalchemy as sa

from services.capacity.context import KnownFleet
from services.capacity.operations.announce import announce_queue
from services.capacity.operations.read import read_facts
from shared.database import Database, Statement
from tests.support.capacity import NOW, Capacity, facts, later

POD = "INSERT INTO gpu_pods (uid, resource_version, name, node, gpus, seen_at) VALUES ('p', 1, 'a/b', 'n1', 2, now())"
CHANGES = {
    "a node is cordoned": "UPDATE nodes SET schedulable = false WHERE name = 'n1'",
    "a node is gone": "UPDATE nodes SET gone_at = now() WHERE name = 'n1'",
    "a node is deleted": "DELETE FROM nodes WHERE name = 'n1'",
    "a node joins": 'INSERT INTO nodes SELECT (jsonb_populate_record(one, \'{"name": "n9"}\')).* FROM nodes AS one '
    "WHERE name = 'n1'",
    "a lease is given back": "DELETE FROM leases WHERE gpu_index = 0",
    "a lease is granted": "INSERT INTO leases SELECT 'n1', 7, job_id, epoch, granted_at FROM leases "
    "WHERE gpu_index = 0",
    "a lease moves": "UPDATE leases SET gpu_index = 6 WHERE gpu_index = 0",
    "a foreign pod comes": POD.replace("'p'", "'q'"),
    "a foreign pod takes more": "UPDATE gpu_pods SET gpus = 3",
    "a foreign pod goes": "DELETE FROM gpu_pods",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_every_change_of_the_fleet_is_seen_by_who_knows_it(capacity: Capacity, change: str) -> None:
    known = await known_fleet(capacity)
    before = await read_facts(capacity.database, known)
    await capacity.database.execute(Statement(sa.text(CHANGES[change])))
    after = await read_facts(capacity.database, known)
    assert after == await read_facts(capacity.database)
    assert after.nodes != before.nodes


async def test_a_fleet_that_is_known_is_not_read_again_while_the_queue_changes(capacity: Capacity) -> None:
    known = await known_fleet(capacity)
    before = await read_facts(capacity.database, known)
    await capacity.submit(4, at=later(seconds=3))
    await capacity.database.execute(Statement(sa.text("UPDATE nodes SET gone_at = now() WHERE name = 'no such'")))
    after = await read_facts(capacity.database, known)
    assert after.nodes is before.nodes
    assert after.counts != before.counts
    assert after == await read_facts(capacity.database)


async def test_equal_facts_are_read_as_equal_however_postgresql_counts_them(capacity: Capacity) -> None:
    await known_fleet(capacity)
    for gpu_type in ("a100", "b200", "h100", "h200", "l4", "t4"):
        await capacity.submit(1, gpu_type, at=later(seconds=3))
    other = Database(capacity.dsn, pool_size=1)
    facts_of = []
    for groups in ("enable_hashagg", "enable_sort"):
        async with other.transaction() as tx:
            await tx.execute(Statement(sa.text(f"SET LOCAL {groups} = off")))
            facts_of.append(await read_facts(tx))
    await other.close()
    assert facts_of[0] == facts_of[1]


async def test_marks_are_folded_and_say_the_same(capacity: Capacity) -> None:
    known = await known_fleet(capacity)
    for _ in range(80):
        await capacity.database.execute(Statement(sa.text("UPDATE nodes SET seen_at = seen_at")))
    before = await read_facts(capacity.database, known)
    await announce_queue(capacity.context, now=NOW)
    assert (await read_facts(capacity.database, known)).nodes is before.nodes
    assert await capacity.database.fetch_value(Statement(sa.text("SELECT count(*) FROM fleet_changes"))) == 1


async def known_fleet(capacity: Capacity) -> KnownFleet:
    """Two nodes with a job of 4 GPUs and a pod that is no job's, as they were read once."""
    await capacity.nodes(facts("n1"), facts("n2"))
    await capacity.submit(4)
    await capacity.schedule()
    await capacity.database.execute(Statement(sa.text(POD)))
    known = KnownFleet()
    shown: Any = await read_facts(capacity.database, known)
    assert len(shown.nodes) == 2
    return known
