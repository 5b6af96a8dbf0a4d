"""Pods of the local cluster start in turns."""

import asyncio

from deploy.local.cluster.kubelet.turns import Turn, Turns


async def begun(turn: Turn) -> asyncio.Task[None]:
    """Its begin, which has come as far as it comes by itself."""
    task = asyncio.create_task(turn.begin(unless=asyncio.Event()))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_the_next_one_begins_when_one_has_ended_in_the_order_in_which_they_came() -> None:
    turns = Turns(1, seconds=60)
    first, second, third = turns.one(), turns.one(), turns.one()
    tasks = [await begun(turn) for turn in (first, second, third)]
    assert [task.done() for task in tasks] == [True, False, False]
    first.end()
    first.end()
    await tasks[1]
    assert not tasks[2].done()
    second.end()
    await tasks[2]
    third.end()


async def test_one_that_takes_too_long_holds_nobody_up() -> None:
    turns = Turns(1, seconds=0.01)
    slow, next_one = turns.one(), turns.one()
    await slow.begin(unless=asyncio.Event())
    await asyncio.wait_for(next_one.begin(unless=asyncio.Event()), 10)
    for turn in (slow, next_one):
        turn.end()


async def test_a_pod_that_is_deleted_waits_for_no_turn_and_takes_none() -> None:
    turns, deleted = Turns(1, seconds=60), asyncio.Event()
    first, second, third = turns.one(), turns.one(), turns.one()
    await first.begin(unless=asyncio.Event())
    waiting = asyncio.create_task(second.begin(unless=deleted))
    await asyncio.sleep(0)
    deleted.set()
    await waiting
    second.end()
    last = await begun(third)
    assert not last.done()
    first.end()
    await last
    third.end()
