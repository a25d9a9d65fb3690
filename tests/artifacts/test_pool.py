"""The pool of connections."""

from __future__ import annotations

import anyio
import pytest

from asyncstore.backends.pool import Pool
from asyncstore.errors import InvalidStateError, NotFoundError, UnavailableError

pytestmark = pytest.mark.anyio


class Lab:
    """Counts connections, which are numbers."""

    def __init__(self, **options: float) -> None:
        self.made: list[int] = []
        self.ended: list[int] = []
        self.most: float = float("inf")
        self.down = False
        self.seconds = 0.0
        self.pool: Pool[int] = Pool(self.connect, self.disconnect, **{"size": 3, **options})  # type: ignore[arg-type]  # whole numbers

    @property
    def open(self) -> int:
        return len(self.made) - len(self.ended)

    async def connect(self) -> int:
        await anyio.sleep(self.seconds)
        if self.down or self.open >= self.most:
            raise UnavailableError("too many")
        self.made.append(len(self.made))
        return self.made[-1]

    async def disconnect(self, connection: int) -> None:
        self.ended.append(connection)

    async def use(self, seconds: float = 0.001) -> None:
        async with self.pool.connection():
            assert self.open <= 3
            await anyio.sleep(seconds)


async def test_connections_are_bounded_and_used_again() -> None:
    lab = Lab()
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(lab.use)
    assert len(lab.made) == 3
    await lab.pool.aclose()
    assert sorted(lab.ended) == lab.made


async def test_users_share_a_connection_when_there_are_enough() -> None:
    lab = Lab(size=2, sharing=3)
    inside: list[int] = []
    async with anyio.create_task_group() as tasks:

        async def use() -> None:
            async with lab.pool.connection() as connection:
                inside.append(connection)
                while len(inside) < 6:
                    await anyio.sleep(0)

        for _ in range(6):
            tasks.start_soon(use)
    assert sorted(inside) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("error", [UnavailableError, ValueError])
async def test_a_broken_connection_is_not_used_again(error: type[Exception]) -> None:
    lab = Lab()
    with pytest.raises(error):
        async with lab.pool.connection():
            raise error("broken")
    assert lab.ended == [0]
    await lab.use()
    assert lab.made == [0, 1]


async def test_an_error_of_the_work_keeps_the_connection() -> None:
    lab = Lab()
    with pytest.raises(NotFoundError):
        async with lab.pool.connection():
            raise NotFoundError("no such file")
    await lab.use()
    assert lab.made == [0]
    assert not lab.ended


async def test_a_server_that_is_gone_takes_the_idle_ones_with_it() -> None:
    lab = Lab()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(lab.use)
    assert lab.open == 3
    with pytest.raises(UnavailableError):
        async with lab.pool.connection():
            raise UnavailableError("gone")
    assert lab.open == 0


async def test_an_idle_connection_is_not_used_for_ever() -> None:
    lab = Lab(max_idle=0)
    await lab.use()
    await anyio.sleep(0.01)
    await lab.use()
    assert lab.made == [0, 1]
    assert lab.ended[0] == 0


async def test_cancelled_users_leave_nothing() -> None:
    lab = Lab()
    lab.seconds = 0.02
    for moment in (0.0, 0.01, 0.025, 0.03):
        with anyio.move_on_after(moment):
            async with anyio.create_task_group() as tasks:
                for _ in range(9):
                    tasks.start_soon(lab.use, 0.01)
        assert len(lab.pool) == lab.open
    lab.seconds = 0
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(9):
                tasks.start_soon(lab.use)
    await lab.pool.aclose()
    assert lab.open == 0


async def test_a_server_that_takes_fewer_gets_fewer() -> None:
    lab = Lab()
    lab.most = 2
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(lab.use)
    assert lab.open == 2


async def test_a_server_that_is_down_is_an_error() -> None:
    lab = Lab()
    lab.down = True
    with pytest.raises(UnavailableError):
        await lab.use()
    lab.down = False
    await lab.use()


async def test_a_closed_pool_connects_no_more() -> None:
    lab = Lab()
    async with lab.pool.connection():
        await lab.pool.aclose()
        assert lab.open == 1
    assert lab.open == 0
    with pytest.raises(InvalidStateError):
        await lab.use()
