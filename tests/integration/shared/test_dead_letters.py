"""Events that a service could not handle, and operators who let them take effect after all."""

from argparse import Namespace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from shared.admin import CommandFailed, dead_letter_commands
from shared.audit import Act, audit_endpoint, begin_act
from shared.contracts.audit import AuditQuery
from shared.errors import Conflict, NotFound
from shared.messaging import Delivery
from shared.messaging import consumer as consumer_module
from shared.messaging.dead_letters import list_dead_letters, redeliver
from tests.support.harness import Harness, eventually, running

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def parked(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> tuple[UUID, UUID]:
    """Two events that failed in all their attempts, oldest first."""
    monkeypatch.setattr(consumer_module, "_RETRY_SECONDS", (0.05,))
    monkeypatch.setattr(consumer_module, "MAX_ATTEMPTS", 1)
    harness.failing |= {"bad", "worse"}
    ids = []
    async with running(harness.relay.loop.run, harness.consumer().loop.run):
        for number, name in enumerate(("bad", "worse"), start=1):
            ids.append(await harness.publish(name))

            async def dead(number: int = number) -> bool:
                return len(await list_dead_letters(harness.database)) == number

            await eventually(dead, "the event is parked")
    return ids[0], ids[1]


async def run(harness: Harness, command: str, *event_ids: UUID) -> str:
    delivery = Delivery(harness.subscriptions)
    commands = {one.name: one for one in dead_letter_commands(harness.database, delivery, lambda: NOW)}
    return await commands[command].run(Namespace(event_ids=list(event_ids)))


async def test_dead_letters_are_shown_with_their_error(harness: Harness, parked: tuple[UUID, UUID]) -> None:
    lines = (await run(harness, "list-dead-letters")).splitlines()
    assert [UUID(line.split()[0]) for line in lines] == list(parked)
    assert lines[0].endswith(f"gpudev.v1.{harness.name}.happened.bad  RuntimeError: told to fail")


async def test_a_dead_letter_takes_effect_once_and_is_gone(harness: Harness, parked: tuple[UUID, UUID]) -> None:
    harness.failing.clear()
    begin_act(Act(action="redeliver_dead_letters"))
    assert await run(harness, "redeliver-dead-letters", parked[0]) == f"{parked[0]}  done"
    assert harness.seen == [("bad", 1)]
    assert [letter.event_id for letter in await list_dead_letters(harness.database)] == [parked[1]]
    with pytest.raises(NotFound):
        await redeliver(harness.database, Delivery(harness.subscriptions), event_id=parked[0], now=NOW)
    (entry,) = (await audit_endpoint(harness.database)(AuditQuery(limit=50))).entries
    subject = f"gpudev.v1.{harness.name}.happened.bad"
    assert (entry.action, entry.at, entry.username) == ("redeliver_dead_letters", NOW, None)
    assert (entry.object_kind, entry.object_id, entry.object_name) == ("event", str(parked[0]), subject)
    # the stream delivers it to a new consumer once more: the inbox knows it
    async with running(harness.relay.loop.run, harness.consumer().loop.run):
        await harness.publish("next")
        await eventually(lambda: ("next", 1) in harness.seen, "the event behind it")
    assert harness.seen == [("bad", 1), ("next", 1)]


async def test_one_that_fails_again_stays_and_the_others_take_effect(
    harness: Harness, parked: tuple[UUID, UUID]
) -> None:
    harness.failing.remove("worse")
    begin_act(Act(action="redeliver_dead_letters"))
    with pytest.raises(CommandFailed) as caught:
        await run(harness, "redeliver-dead-letters")
    assert caught.value.text.splitlines() == [
        f"{parked[0]}  failed: RuntimeError: told to fail",
        f"{parked[1]}  done",
    ]
    assert harness.seen == [("worse", 1)]
    (entry,) = (await audit_endpoint(harness.database)(AuditQuery(limit=50))).entries
    assert entry.object_id == str(parked[1]), "what failed has changed nothing"
    assert [letter.event_id for letter in await list_dead_letters(harness.database)] == [parked[0]]


async def test_one_that_nobody_listens_to_any_more_stays(harness: Harness, parked: tuple[UUID, UUID]) -> None:
    with pytest.raises(Conflict, match="does not listen"):
        await redeliver(harness.database, Delivery([]), event_id=parked[0], now=NOW)
    assert len(await list_dead_letters(harness.database)) == 2


async def test_without_dead_letters_it_says_so(harness: Harness) -> None:
    assert await run(harness, "list-dead-letters") == "There are no dead letters"
    assert await run(harness, "redeliver-dead-letters") == "There are no dead letters"
    with pytest.raises(CommandFailed, match="not found"):
        await run(harness, "redeliver-dead-letters", uuid4())
