from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncstore.concurrency import (
    ByteBudget,
    Turnstile,
    in_own_task,
    opened_in_own_task,
    shielded,
    task_group,
)
from asyncstore.errors import UnavailableError

pytestmark = pytest.mark.anyio


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


# task_group


async def test_task_group_raises_the_first_error_itself() -> None:
    ended: list[str] = []

    async def sibling() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            ended.append("sibling")

    async def fail() -> None:
        raise UnavailableError("no") from KeyError("why")

    with pytest.raises(UnavailableError, match="no") as raised:
        async with task_group() as tasks:
            tasks.start_soon(sibling)
            tasks.start_soon(fail)
    assert ended == ["sibling"]
    assert isinstance(raised.value.__cause__, KeyError)


async def test_task_group_lets_no_interrupt_hide_behind_an_error() -> None:
    async def fail(error: BaseException) -> None:
        raise error

    class Interrupt(BaseException):
        pass

    with pytest.raises(Interrupt):
        async with task_group() as tasks:
            tasks.start_soon(fail, ValueError())
            tasks.start_soon(fail, Interrupt())


async def test_task_group_nested_groups_come_out_flat() -> None:
    async def fail() -> None:
        async with anyio.create_task_group() as inner:
            inner.start_soon(fail_inside)

    async def fail_inside() -> None:
        raise ValueError("deep")

    with pytest.raises(ValueError, match="deep"):
        async with task_group() as tasks:
            tasks.start_soon(fail)


# in_own_task and shielded


async def native(work: Callable[[], Awaitable[object]], ready: asyncio.Event) -> None:
    """Cancel by `Task.cancel`, three times: impatient callers exist."""
    task = asyncio.ensure_future(_as_coroutine(work))
    await ready.wait()
    for _ in range(3):
        task.cancel()
        await anyio.lowlevel.checkpoint()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def by_timeout(work: Callable[[], Awaitable[object]], ready: asyncio.Event) -> None:
    """Cancel by `asyncio.timeout`."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as deadline:

            async def expire() -> None:
                await ready.wait()
                deadline.reschedule(0)

            watcher = asyncio.ensure_future(expire())
            try:
                await work()
            finally:
                watcher.cancel()


async def by_scope(work: Callable[[], Awaitable[object]], ready: asyncio.Event) -> None:
    """Cancel by an anyio scope."""
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                await ready.wait()
                scope.cancel()

            tasks.start_soon(cancel)
            await work()
        assert scope.cancelled_caught


async def _as_coroutine(work: Callable[[], Awaitable[object]]) -> object:
    return await work()


WAYS = pytest.mark.parametrize("cancel", [native, by_timeout, by_scope])
Cancel = Callable[[Callable[[], Awaitable[object]], asyncio.Event], Awaitable[None]]


@WAYS
async def test_cleanup_is_awaited_to_its_end(cancel: Cancel) -> None:
    steps: list[str] = []
    ready = asyncio.Event()

    async def clean_up() -> None:
        for number in range(20):
            await anyio.lowlevel.checkpoint()
            steps.append(str(number))

    async def work() -> None:
        try:
            ready.set()
            await anyio.sleep_forever()
        finally:
            await shielded(clean_up, within=30)

    before = asyncio.all_tasks()
    await cancel(lambda: in_own_task(work), ready)
    assert len(steps) == 20
    assert asyncio.all_tasks() <= before


@WAYS
async def test_a_worker_thread_is_not_left_behind(cancel: Cancel) -> None:
    loop = asyncio.get_running_loop()
    ready, release, ended = asyncio.Event(), threading.Event(), threading.Event()

    def block() -> None:
        loop.call_soon_threadsafe(ready.set)
        loop.call_soon_threadsafe(lambda: loop.call_later(0.05, release.set))
        release.wait(30)
        ended.set()

    await cancel(lambda: in_own_task(lambda: anyio.to_thread.run_sync(block)), ready)
    assert ended.is_set()


async def test_without_own_task_a_native_cancel_breaks_the_shield() -> None:
    """What `in_own_task` is for; when this fails, it is no longer needed."""
    steps: list[str] = []
    ready = asyncio.Event()

    async def clean_up() -> None:
        ready.set()
        await settle()
        steps.append("clean")

    task = asyncio.ensure_future(shielded(clean_up, within=30))
    await ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == []


async def test_own_task_returns_and_raises() -> None:
    async def give() -> str:
        await anyio.lowlevel.checkpoint()
        return "it"

    async def fail() -> None:
        raise UnavailableError("no")

    assert await in_own_task(give) == "it"
    with pytest.raises(UnavailableError, match="no"):
        await in_own_task(fail)


async def test_shielded_is_bounded_in_time() -> None:
    with pytest.raises(UnavailableError, match=r"no answer within 0\.01 s"):
        await shielded(anyio.sleep_forever, within=0.01)


async def test_shielded_in_a_cancelled_scope_returns() -> None:
    async def give() -> int:
        await settle()
        return 1

    with anyio.CancelScope() as scope:
        scope.cancel()
        assert await shielded(give, within=30) == 1


# ByteBudget


async def test_budget_serves_in_order() -> None:
    budget = ByteBudget(10)
    served: list[int] = []
    await budget.acquire(8)

    async def take(size: int) -> None:
        await budget.acquire(size)
        served.append(size)

    async with anyio.create_task_group() as tasks:
        for size in (6, 1, 9):
            tasks.start_soon(take, size)
            await settle()
        # 1 would fit, but 6 asked first.
        assert served == []
        budget.release(8)
        await settle()
        assert served == [6, 1]
        budget.release(6)
        await settle()
        assert served == [6, 1, 9]


async def test_a_demand_above_the_budget_is_all_of_it() -> None:
    budget = ByteBudget(10)
    async with budget.hold(1000):
        with anyio.move_on_after(0.01) as scope:
            await budget.acquire(1)
        assert scope.cancelled_caught
    async with budget.hold(10):
        pass


async def test_who_gives_up_lets_the_next_one_through() -> None:
    budget = ByteBudget(10)
    await budget.acquire(5)
    served: list[str] = []

    async def take(size: int, name: str) -> None:
        await budget.acquire(size)
        served.append(name)

    async with anyio.create_task_group() as tasks:
        large = asyncio.ensure_future(take(10, "large"))
        await settle()
        tasks.start_soon(take, 5, "small")
        await settle()
        assert served == []
        large.cancel()
        await settle()
        assert served == ["small"]
    assert large.cancelled()


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancellation_that_meets_the_grant_loses_nothing(steps: int) -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    waiting = asyncio.ensure_future(budget.acquire(10))
    await settle()
    budget.release(10)
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    if not waiting.cancelled():
        budget.release(10)
    with anyio.fail_after(10):
        await budget.acquire(10)


async def test_a_cancelled_caller_takes_nothing() -> None:
    budget = ByteBudget(1)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await budget.acquire(1)
    assert scope.cancelled_caught
    with anyio.fail_after(10):
        await budget.acquire(1)


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 4), st.booleans()), max_size=12),
)
async def test_the_budget_holds_whatever_comes(
    total: int, demands: list[tuple[int, int, bool]]
) -> None:
    budget = ByteBudget(total)
    held = most = 0

    async def use(size: int, steps: int) -> None:
        nonlocal held, most
        async with budget.hold(size):
            held += min(size, total)
            most = max(most, held)
            for _ in range(steps):
                await asyncio.sleep(0)
            held -= min(size, total)

    tasks = []
    for size, steps, cancelled in demands:
        task = asyncio.ensure_future(use(size, steps))
        tasks.append(task)
        await asyncio.sleep(0)
        if cancelled and held == 0:
            task.cancel()
    with anyio.fail_after(10):
        await asyncio.gather(*tasks, return_exceptions=True)
        await budget.acquire(total)
    assert most <= total


# Turnstile


async def test_a_turn_lets_a_few_through_in_order() -> None:
    turnstile = Turnstile(3)
    passed: list[int] = []

    async def enter(number: int) -> None:
        await turnstile.enter()
        passed.append(number)

    counts: list[int] = []
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(enter, number)
        while len(passed) < 20:
            counts.append(len(passed))
            await asyncio.sleep(0)
    assert passed == list(range(20))
    assert max(after - before for before, after in itertools.pairwise(counts)) <= 3


async def test_a_turnstile_forgets_who_was_cancelled() -> None:
    turnstile = Turnstile(1)
    tasks = [asyncio.ensure_future(turnstile.enter()) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks[1::2]:
        task.cancel()
    await asyncio.wait(tasks, timeout=10)
    assert [task.cancelled() for task in tasks[1:]] == [True, False] * 4 + [True]
    with anyio.fail_after(10):
        await turnstile.enter()


# opened_in_own_task


class Opened:
    closed = False

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed = True


async def test_what_nobody_gets_is_closed() -> None:
    opened = Opened()

    async def open_() -> Opened:
        # Too late for it to notice.
        task.cancel()
        return opened

    task = asyncio.ensure_future(opened_in_own_task(open_, close_within=1))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert opened.closed


async def test_what_somebody_gets_stays_open() -> None:
    opened = Opened()

    async def open_() -> Opened:
        return opened

    assert await opened_in_own_task(open_, close_within=1) is opened
    assert not opened.closed
