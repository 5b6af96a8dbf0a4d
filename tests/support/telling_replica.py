"""A replica that writes down in which order events took effect: `python -m tests.support.telling_replica`."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from shared.contracts.events import CloudEvent
from shared.database import Database, Statement, Transaction
from shared.messaging import BatchSubscription, Broker, Consumer
from tests.support.harness import Happened

TABLE = "CREATE TABLE told (id bigserial PRIMARY KEY, version bigint UNIQUE, told_by text)"
_TELL = Statement(
    sa.text("INSERT INTO told (version, told_by) VALUES (:version, :told_by) ON CONFLICT DO NOTHING").bindparams(
        sa.bindparam("version", type_=sa.BigInteger), sa.bindparam("told_by", type_=sa.Text)
    )
)
_POOL = 4


def start_replica(dsn: str, nats_url: str, name: str) -> subprocess.Popen[bytes]:
    """A new one, in a process of its own that is told these."""
    argv = [sys.executable, "-m", "tests.support.telling_replica", dsn, nats_url, name]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def _run(dsn: str, nats_url: str, name: str) -> None:
    async def tell(transaction: Transaction, received: Sequence[tuple[Any, CloudEvent]]) -> None:
        for _, event in received:
            await transaction.execute(_TELL, version=event.sequence, told_by=name)

    broker = Broker(nats_url, name=name)
    consumer = Consumer(
        name=Happened.DOMAIN,
        database=Database(dsn, pool_size=_POOL),
        broker=broker,
        subscriptions=[BatchSubscription(Happened, tell, repeatable=True)],
    )
    await asyncio.gather(broker.run(), consumer.loop.run())


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:]))
