from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncstore.errors import AsyncStoreError, IntegrityError, UnavailableError
from asyncstore.retry import RetryPolicy

pytestmark = pytest.mark.anyio


class Flaky:
    """Fails as told, then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of every wait, none of which is waited."""
    seen: list[float] = []

    async def sleep(delay: float) -> None:
        seen.append(delay)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return seen


async def test_success_waits_for_nothing(waits: list[float]) -> None:
    call = Flaky()
    assert await RetryPolicy().run(call) == "done"
    assert (call.calls, waits) == (1, [])


async def test_transient_errors_are_tried_again_with_longer_waits(waits: list[float]) -> None:
    call = Flaky(*(UnavailableError(str(n)) for n in range(5)))
    assert await RetryPolicy(attempts=6, backoff=0.2, max_backoff=1.0).run(call) == "done"
    assert call.calls == 6
    bounds = [(0.1, 0.2), (0.2, 0.4), (0.4, 0.8), (0.5, 1.0), (0.5, 1.0)]
    assert all(low <= wait <= high for wait, (low, high) in zip(waits, bounds, strict=True))


async def test_the_last_error_comes_out(waits: list[float]) -> None:
    call = Flaky(*(UnavailableError(str(n)) for n in range(9)))
    with pytest.raises(UnavailableError, match=r"^2$"):
        await RetryPolicy(attempts=3).run(call)
    assert (call.calls, len(waits)) == (3, 2)


@pytest.mark.parametrize(
    "error", [IntegrityError("x"), AsyncStoreError("x"), ConnectionError("x"), ValueError("x")]
)
async def test_other_errors_come_out_at_once(error: Exception, waits: list[float]) -> None:
    call = Flaky(error)
    with pytest.raises(type(error)) as raised:
        await RetryPolicy().run(call)
    assert raised.value is error
    assert (call.calls, waits) == (1, [])


async def test_one_attempt_means_no_retry(waits: list[float]) -> None:
    with pytest.raises(UnavailableError):
        await RetryPolicy(attempts=1).run(Flaky(UnavailableError("x")))
    assert waits == []


async def test_the_server_says_how_long_to_wait(waits: list[float]) -> None:
    call = Flaky(UnavailableError("x", retry_after=3.0), UnavailableError("x", retry_after=999.0))
    await RetryPolicy(backoff=0.1, max_backoff=20.0).run(call)
    assert waits == [3.0, 20.0]


async def test_a_cancellation_ends_the_wait() -> None:
    call = Flaky(UnavailableError("x", retry_after=60), UnavailableError("x"))
    policy = RetryPolicy(max_backoff=60)
    with anyio.move_on_after(0.01) as scope:
        await policy.run(call)
    assert scope.cancelled_caught
    assert call.calls == 1


@given(
    attempt=st.integers(1, 60),
    backoff=st.floats(0.001, 10),
    ceiling=st.floats(0.001, 100),
    asked=st.none() | st.floats(0, 1000),
)
def test_a_wait_has_its_bounds(
    attempt: int, backoff: float, ceiling: float, asked: float | None
) -> None:
    wait = RetryPolicy(backoff=backoff, max_backoff=ceiling).wait(attempt, asked)
    assert 0 < wait <= ceiling
    assert wait >= min(ceiling, asked or 0)
    assert wait >= min(ceiling, backoff * 2 ** (attempt - 1)) / 2
