import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from shared.errors import DatabaseUnavailable
from shared.leased_worker import Budget, LeasedWorker, LeaseLost, hold
from tests.support.harness import eventually, running

pytestmark = pytest.mark.asyncio(loop_factories=["skipping"])
_LEASE = timedelta(seconds=0.2)


class Numbers:
    """Rows 0, 1, 2 …, due once each and again after a retry."""

    def __init__(self, count: int, work: Callable[[int, Budget], Awaitable[str]]) -> None:
        self.due = list(range(count))
        self.given_back: dict[int, str] = {}
        self.retried: list[int] = []
        self.handed_over: list[int] = []
        self.held = True
        self._work = work

    async def claim(self, worker: UUID, lease: timedelta, limit: int) -> Sequence[int]:
        del worker, lease
        claimed, self.due = self.due[:limit], self.due[limit:]
        return claimed

    async def renew(self, row: int, worker: UUID, lease: timedelta) -> bool:
        del row, worker, lease
        return self.held

    async def work(self, row: int, budget: Budget) -> str:
        return await self._work(row, budget)

    async def give_back(self, row: int, worker: UUID, result: str) -> None:
        del worker
        self.given_back[row] = result

    async def retry(self, row: int, worker: UUID) -> None:
        del worker
        self.retried.append(row)

    async def hand_over(self, row: int, worker: UUID) -> None:
        del worker
        self.handed_over.append(row)


def worker_of(rows: Numbers, *, at_once: int = 4, budget_seconds: float = 10.0) -> LeasedWorker[int, str]:
    return LeasedWorker("numbers", rows, at_once=at_once, budget_seconds=budget_seconds, lease=_LEASE)


async def test_rows_are_worked_a_few_at_once_until_none_is_due() -> None:
    at_work, most = 0, 0

    async def work(row: int, _: Budget) -> str:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        return f"done {row}"

    rows = Numbers(20, work)
    async with running(worker_of(rows, at_once=3).loop.run):
        await eventually(lambda: len(rows.given_back) == 20, "all rows are worked")
    assert most == 3
    assert rows.given_back[7] == "done 7"
    assert rows.retried == []


async def test_a_row_that_fails_is_tried_again_and_stops_no_other() -> None:
    async def work(row: int, _: Budget) -> str:
        if row == 1:
            raise RuntimeError("told to")
        return "done"

    rows = Numbers(3, work)
    await worker_of(rows).work_due()
    assert sorted(rows.given_back) == [0, 2]
    assert rows.retried == [1]


async def test_a_row_is_tried_again_later_when_somebody_else_cancels_what_its_pass_waits_for() -> None:
    async def work(_: int, __: Budget) -> str:
        closed = asyncio.get_running_loop().create_future()
        closed.cancel()
        return str(await closed)

    rows = Numbers(1, work)
    await worker_of(rows).work_due()
    assert (rows.retried, rows.handed_over) == ([0], [])


async def test_work_ends_with_its_lease_when_a_renewal_fails_in_a_way_that_nobody_foresaw() -> None:
    class Broken(Numbers):
        async def renew(self, row: int, worker: UUID, lease: timedelta) -> bool:
            del row, worker, lease
            raise RuntimeError("told to")

    async def work(_: int, __: Budget) -> str:
        await asyncio.Event().wait()
        return "never"

    rows = Broken(1, work)
    await worker_of(rows, budget_seconds=600.0).work_due()
    assert rows.retried == [0]


async def test_a_pass_that_outlives_its_budget_is_cut_off() -> None:
    async def work(_: int, __: Budget) -> str:
        await asyncio.Event().wait()
        return "never"

    rows = Numbers(1, work)
    await worker_of(rows, budget_seconds=0.02).work_due()
    assert rows.retried == [0]


async def test_a_slow_pass_keeps_its_lease() -> None:
    renewals = 0
    enough = asyncio.Event()

    class Counted(Numbers):
        async def renew(self, row: int, worker: UUID, lease: timedelta) -> bool:
            nonlocal renewals
            renewals += 1
            if renewals >= 8:  # twice as long as a lease
                enough.set()
            return await super().renew(row, worker, lease)

    async def work(_: int, __: Budget) -> str:
        await enough.wait()
        return "done"

    rows = Counted(1, work)
    await worker_of(rows).work_due()
    assert rows.given_back == {0: "done"}


async def test_work_is_cancelled_when_its_lease_is_anothers() -> None:
    cancelled = asyncio.Event()

    async def work(_: int, __: Budget) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "never"

    rows = Numbers(1, work)
    rows.held = False
    await worker_of(rows).work_due()
    assert cancelled.is_set()
    assert rows.retried == [0]


async def test_work_ends_before_a_lease_that_could_not_be_renewed() -> None:
    began = asyncio.get_running_loop().time()

    async def unreachable() -> bool:
        raise DatabaseUnavailable

    with pytest.raises(LeaseLost):
        await hold(unreachable, asyncio.sleep(60), lease=timedelta(seconds=2))
    assert asyncio.get_running_loop().time() - began == pytest.approx(1.5), "a renewal's pause before its end"


async def test_who_is_cancelled_from_outside_has_not_lost_a_lease() -> None:
    async def held() -> bool:
        return True

    task = asyncio.create_task(hold(held, asyncio.sleep(60), lease=_LEASE))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_rows_under_way_are_handed_over_at_the_end() -> None:
    begun = asyncio.Event()

    async def work(_: int, __: Budget) -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    rows = Numbers(1, work)
    worker = worker_of(rows)
    await worker.turn()
    await begun.wait()
    await worker.close()
    assert (rows.handed_over, rows.retried) == ([0], [])


async def test_calls_of_a_pass_never_add_up_past_its_budget() -> None:
    async def hang(budget: Budget, seconds: float, leaving_seconds: float = 0.0) -> None:
        with pytest.raises(TimeoutError):
            async with budget.call(seconds, leaving_seconds=leaving_seconds):
                await asyncio.Event().wait()

    budget = Budget(30)
    await hang(budget, 5)
    assert budget.left_seconds == pytest.approx(25)
    await hang(budget, 60, leaving_seconds=10)
    assert budget.left_seconds == pytest.approx(10)
    await hang(budget, 60)
    await hang(budget, 60)
    assert budget.left_seconds == pytest.approx(0)
