"""A fork while threads are inside SQLite, whose locks a child would inherit locked."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from asyncstore.databases import sqlite_driver
from asyncstore.databases.fork_gate import ForkGate, inside_sqlite

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 10.0


def test_closing_waits_for_those_inside_and_keeps_others_out() -> None:
    gate = ForkGate()
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with gate:
            inside.set()
            assert leave.wait(PATIENCE)
            order.append("left")

    def close() -> None:
        gate.close()
        order.append("closed")

    def come_late() -> None:
        with gate:
            order.append("late")

    worker = threading.Thread(target=work)
    worker.start()
    assert inside.wait(PATIENCE)
    closing = threading.Thread(target=close)
    closing.start()
    with gate._changed:
        gate._changed.wait_for(lambda: gate._closed, PATIENCE)
    late = threading.Thread(target=come_late)
    late.start()
    leave.set()
    closing.join(PATIENCE)
    assert order == ["left", "closed"]
    gate.open()
    late.join(PATIENCE)
    worker.join(PATIENCE)
    assert order == ["left", "closed", "late"]


@pytest.mark.anyio
async def test_every_call_of_the_driver_is_inside(tmp_path: Path) -> None:
    connection = await sqlite_driver.connect(str(tmp_path / "m.db"), check_same_thread=False)
    try:
        await connection.create_function("inside", 0, lambda: inside_sqlite._inside)
        cursor = await connection.cursor().execute("SELECT inside()")
        assert await cursor.fetchone() == (1,)
        assert inside_sqlite._inside == 0
    finally:
        await connection.close()


@pytest.mark.anyio
async def test_a_transaction_stays_inside(tmp_path: Path) -> None:
    connection = await sqlite_driver.connect(
        str(tmp_path / "m.db"), check_same_thread=False, isolation_level=None
    )
    seen = []
    try:
        for sql in ("CREATE TABLE t (a)", "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)", "COMMIT"):
            await connection.execute_all(sql, (), many=False)
            seen.append(inside_sqlite._inside)
        await connection.execute_all("BEGIN IMMEDIATE", (), many=False)
    finally:
        await connection.close()
    assert seen == [0, 1, 1, 0]
    assert inside_sqlite._inside == 0
