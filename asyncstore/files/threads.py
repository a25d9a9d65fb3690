"""File work off the event loop."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)

__all__ = ["patiently", "run_in_thread"]

T = TypeVar("T")
STALE_ATTEMPTS = 5
# Of errors that Python has no class for.
KINDS = {
    errno.ELOOP: InvalidParameterError,
    errno.ENAMETOOLONG: InvalidParameterError,
    errno.ESTALE: UnavailableError,
}
# Enough to keep a disk or an NFS server busy; more would only take the processor from the loop.
MAX_FILE_THREADS = 8
_FILE_THREADS: RunVar[anyio.CapacityLimiter] = RunVar("_FILE_THREADS")


async def run_in_thread(call: Callable[[], T], *, repeat: bool = True) -> T:
    """Do file work in a worker thread, with its errors as asyncstore's.

    A stale NFS handle (ESTALE: the server replaced the file under it) is tried again, since a
    second look-up by name finds the new one.

    Args:
        call: The work.
        repeat: Whether the work is safe to repeat.

    Raises:
        NotFoundError: A file or directory does not exist.
        PermissionDeniedError: The operating system refuses.
        UnavailableError: The handle stays stale; starting again by name may help.
        AsyncStoreError: Any other trouble with the file system, such as a full disk.
    """
    work = partial(patiently, call) if repeat else call
    try:
        return await anyio.to_thread.run_sync(work, limiter=_limiter())
    except AsyncStoreError:
        # Before the rest: some of them are errors of the operating system too.
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"{error.filename} does not exist") from error
    except PermissionError as error:
        raise PermissionDeniedError(f"{error.filename}: {error.strerror}") from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidParameterError(f"{error.filename}: {error.strerror}") from error
    except OSError as error:
        kind = KINDS.get(error.errno or 0, AsyncStoreError)
        raise kind(f"{error.filename or 'file system'}: {error.strerror}") from error


def patiently(call: Callable[[], T]) -> T:
    """Call, again while it meets a stale NFS handle. Blocks.

    Args:
        call: File work that is safe to repeat.

    Returns:
        What it returns.
    """
    for _ in range(STALE_ATTEMPTS - 1):
        try:
            return call()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        time.sleep(0.05)
    return call()


def _limiter() -> anyio.CapacityLimiter:
    try:
        return _FILE_THREADS.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(MAX_FILE_THREADS)
        _FILE_THREADS.set(limiter)
        return limiter
