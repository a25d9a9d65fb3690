"""The way from synchronous code: threads, running loops, forks, interrupts, the exit.

Each test is a program of its own under a watchdog: what could go wrong here is a deadlock.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

WATCHDOG = 60
BEGIN = """
    import asyncio, atexit, os, signal, sys, threading
    from asyncstore.mlflow_plugin import portal
    from asyncstore.mlflow_plugin.portal import get_portal

    URI = sys.argv[1]

    def experiments():
        async def search():
            client = get_portal().client(URI, "artifacts")
            return await client.search_experiments()
        return [each.name for each in get_portal().call(search)]
"""


def program(source: str, uri: str, folder: Path) -> str:
    """Run a program, and fail when it hangs or fails."""
    code = textwrap.dedent(BEGIN) + textwrap.dedent(source)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", code, uri],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/m.db"
    found: str = request.getfixturevalue("postgresql_uri")
    return found


def test_many_threads(uri: str, tmp_path: Path) -> None:
    source = """
        counts = []
        def many():
            for number in range(20):
                counts.append(len(experiments()))
        threads = [threading.Thread(target=many) for _ in range(16)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print(len(counts), set(counts))
    """
    assert program(source, uri, tmp_path) == "320 {1}\n"


def test_inside_a_running_loop(uri: str, tmp_path: Path) -> None:
    source = """
        async def main():
            print(experiments())
        asyncio.run(main())
    """
    assert program(source, uri, tmp_path) == "['Default']\n"


def test_from_its_own_loop_it_is_refused(tmp_path: Path) -> None:
    source = """
        async def inside():
            experiments()
        try:
            get_portal().call(inside)
        except Exception as error:
            print(type(error).__name__, error)
    """
    printed = program(source, "sqlite:///m.db", tmp_path)
    assert printed.startswith("InvalidStateError a synchronous call from asyncstore's own event")


def test_an_error_comes_out_and_the_next_call_works(tmp_path: Path) -> None:
    source = """
        async def fail():
            raise ValueError("no")
        try:
            get_portal().call(fail)
        except ValueError as error:
            print(error, experiments())
    """
    assert program(source, "sqlite:///m.db", tmp_path) == "no ['Default']\n"


def test_a_fork_has_its_own_and_leaves_the_parents(uri: str, tmp_path: Path) -> None:
    source = """
        print(experiments(), flush=True)
        child = os.fork()
        if not child:
            print(experiments(), flush=True)
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print(experiments())
    """
    assert program(source, uri, tmp_path) == "['Default']\n" * 3


def test_forks_while_other_threads_call(uri: str, tmp_path: Path) -> None:
    source = """
        experiments()
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                experiments()
        threads = [threading.Thread(target=busy) for _ in range(4)]
        [thread.start() for thread in threads]
        for _ in range(50):
            child = os.fork()
            if not child:
                os._exit(0 if experiments() == ["Default"] else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        [thread.join() for thread in threads]
        print(experiments())
    """
    assert program(source, uri, tmp_path) == "['Default']\n"


def test_worker_processes_of_multiprocessing(tmp_path: Path) -> None:
    source = """
        import multiprocessing
        experiments()
        def work(_):
            return experiments()
        with multiprocessing.get_context("fork").Pool(3) as pool:
            print(pool.map(work, range(6)) == [["Default"]] * 6)
    """
    assert program(source, "sqlite:///m.db", tmp_path) == "True\n"


def test_the_exit_finishes_what_is_under_way_and_closes_the_database(tmp_path: Path) -> None:
    source = """
        experiments()
        done = []
        async def finish():
            await asyncio.sleep(0.1)
            done.append("finished")
        get_portal().before_closing(finish)
        async def later():
            await asyncio.sleep(0.2)
        get_portal().start(later)

        @atexit.register
        def after():
            print(done, get_portal().closed, sorted(os.listdir()))
            try:
                experiments()
            except Exception as error:
                print(error)
    """
    printed = program(source, "sqlite:///m.db", tmp_path)
    # A database that was closed has no log beside it.
    assert printed.splitlines() == [
        "['finished'] True ['m.db']",
        "asyncstore is closed: the interpreter is exiting",
    ]


def test_what_fails_at_the_exit_skips_nothing_that_comes_after(tmp_path: Path) -> None:
    source = """
        import logging
        logging.disable()
        experiments()
        async def fail():
            raise ValueError("no")
        async def finish():
            print("finished")
        get_portal().before_closing(fail)
        get_portal().before_closing(finish)
        atexit.register(lambda: print(sorted(os.listdir())))
    """
    assert program(source, "sqlite:///m.db", tmp_path) == "finished\n['m.db']\n"


def test_a_first_use_at_the_exit_is_refused(tmp_path: Path) -> None:
    source = """
        @atexit.register
        def first():
            print(get_portal().closed)
            try:
                experiments()
            except Exception as error:
                print(error)
    """
    printed = program(source, "sqlite:///m.db", tmp_path)
    assert printed == "True\nasyncstore is closed: the interpreter is exiting\n"


def test_the_exit_does_not_wait_for_ever(tmp_path: Path) -> None:
    source = """
        import logging
        logging.disable()
        portal.EXIT_WITHIN = 0.5
        async def hang():
            await asyncio.sleep(1000)
        get_portal().before_closing(hang)
    """
    program(source, "sqlite:///m.db", tmp_path)


def test_an_interrupt_cancels_the_call(tmp_path: Path) -> None:
    source = """
        async def long():
            print("begun", flush=True)
            try:
                await asyncio.sleep(1000)
            finally:
                print("cleaned up", flush=True)
        try:
            get_portal().call(long)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    code = textwrap.dedent(BEGIN) + textwrap.dedent(source)
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import signal; signal.signal(2, signal.default_int_handler)\n{code}",
            "",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(WATCHDOG) == 0
    assert sorted(rest.splitlines()) == ["cleaned up", "interrupted"]
