import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared import background
from shared.background import Loop, cancel_all, each_in_turn, in_turns
from shared.errors import Unavailable
from tests.support.harness import eventually, running

pytestmark = pytest.mark.asyncio(loop_factories=["skipping"])


async def test_a_burst_of_wakes_is_done_in_few_turns() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1

    loop = Loop("burst", turn, period_seconds=60, pause_seconds=0.05)
    async with running(loop.run):
        await eventually(lambda: turns == 1, "the first turn")
        for _ in range(1000):
            loop.wake()
            await asyncio.sleep(0)
        await eventually(lambda: turns >= 2, "a turn for the burst")
    assert turns <= 3


async def test_a_wake_during_a_turn_leads_to_one_more() -> None:
    turns = 0
    entered, leave = asyncio.Event(), asyncio.Event()

    async def turn() -> None:
        nonlocal turns
        turns += 1
        entered.set()
        await leave.wait()

    loop = Loop("woken", turn, period_seconds=60)
    async with running(loop.run):
        await entered.wait()
        loop.wake()
        leave.set()
        await eventually(lambda: turns == 2, "one more turn")


async def test_a_turn_that_fails_is_repeated_and_one_that_hangs_is_cut_off() -> None:
    outcomes = ["fail", "hang", "well"]
    done = asyncio.Event()

    async def turn() -> None:
        outcome = outcomes.pop(0)
        if outcome == "fail":
            raise RuntimeError("told to")
        if outcome == "hang":
            await asyncio.Event().wait()
        done.set()

    loop = Loop("troubled", turn, period_seconds=0.01, turn_seconds=0.05)
    async with running(loop.run):
        await asyncio.wait_for(done.wait(), 60)


async def test_a_back_off_outlasts_a_wake_and_ends_when_the_obstacle_is_gone() -> None:
    turns: list[str] = []

    def failing(name: str) -> Loop:
        async def turn() -> None:
            turns.append(name)
            raise RuntimeError("told to")

        return Loop(name, turn, period_seconds=60)

    woken, mended = failing("woken"), failing("mended")
    async with running(woken.run), running(mended.run):
        await eventually(lambda: len(turns) == 2, "the first turns")
        woken.wake()
        mended.obstacle_gone()
        await eventually(lambda: len(turns) == 4, "one more of each")
    assert turns[2:] == ["mended", "woken"]


async def test_a_back_off_that_is_shorter_than_the_pause_adds_nothing_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(_: asyncio.Event, seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    async def turn() -> None:
        raise RuntimeError("told to")

    monkeypatch.setattr(background, "wait_until_set", note)
    loop = Loop("paused", turn, period_seconds=0.3, pause_seconds=0.25)  # the first back-off is 0.2 s
    async with running(loop.run):
        await eventually(lambda: len(waits) >= 2, "a rest")
    back_off, period = waits[:2]
    assert back_off < 0
    assert period < 0.1


async def test_a_loop_outlives_an_outage_of_thousands_of_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = 2000  # 2 to the power of 1024 is no float

    async def at_once(_event: asyncio.Event, _seconds: float) -> None:
        await asyncio.sleep(0)

    turns = 0
    well = asyncio.Event()

    async def turn() -> None:
        nonlocal turns
        turns += 1
        if turns <= outage:
            raise Unavailable("told to")
        well.set()

    monkeypatch.setattr(background, "wait_until_set", at_once)
    async with running(Loop("patient", turn).run):
        await asyncio.wait_for(well.wait(), 60)


async def test_a_loop_outlives_that_somebody_else_cancels_what_a_turn_waits_for() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            closed = asyncio.get_running_loop().create_future()
            closed.cancel()  # as a client does with what waits for its connection
            await closed

    loop = Loop("left alone", turn, period_seconds=0.01)
    running_loop = asyncio.create_task(loop.run())
    await eventually(lambda: turns > 1 or running_loop.done(), "another turn")
    assert not running_loop.done()
    await cancel_all([running_loop])
    assert running_loop.cancelled()


async def test_a_loop_without_a_good_turn_says_so() -> None:
    seconds = 100.0
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        raise RuntimeError("told to")

    loop = Loop("wedged", turn, period_seconds=0.01, stale_seconds=60, stopwatch=lambda: seconds)
    async with running(loop.run):
        await eventually(lambda: turns, "a turn")
        seconds += 60
        assert loop.fault() is None
        seconds += 1
        assert loop.fault() == "wedged: no good turn for 61 s (RuntimeError)"


async def test_works_that_follow_one_that_fails_have_their_turn() -> None:
    done: list[str] = []

    def work(name: str, outcome: bool | Exception | None) -> Callable[[], Awaitable[bool | None]]:
        async def run() -> bool | None:
            done.append(name)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return run

    assert await each_in_turn([work("a", True), work("b", False)])
    assert not await each_in_turn([work("c", None)])
    with pytest.raises(RuntimeError, match="first"):
        await each_in_turn([work("d", RuntimeError("first")), work("e", LookupError("second")), work("f", None)])
    assert done == list("abcdef")


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel_all([task]), 60)
    assert task.cancelled()


async def test_work_on_many_things_lets_others_have_their_turn() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with running(others):
        seen = [(item, turns) async for item in in_turns(range(200))]
    assert [item for item, _ in seen] == list(range(200))
    waits = [turn for _, turn in seen]
    assert waits[-1] - waits[0] >= 5
    assert max(waits.count(turn) for turn in set(waits)) <= 50
