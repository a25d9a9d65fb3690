"""MLflow's file store, opened for reading."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.concurrency import opened_in_own_task, shielded
from asyncstore.errors import UnsupportedError
from asyncstore.metadata.sql.database import CLOSE_WITHIN, Database
from asyncstore.metadata.sql.migrate import check_source, migrate
from asyncstore.metadata.sql.store import SqlMetadataStore, prepare
from asyncstore.uris import local_path, redact

__all__ = ["open_file_store"]

T = TypeVar("T")

_logger = logging.getLogger("asyncstore")


class LoadedDatabase(Database):
    """A database in memory that takes no more writes once it is loaded.

    Args:
        source: What it is loaded from, for the errors.
    """

    def __init__(self, source: str) -> None:
        super().__init__("sqlite://")
        self.loaded = False
        self._source = source

    @override
    async def write(
        self,
        doing: str,
        body: Callable[[AsyncConnection], Awaitable[T]],
        *,
        repeatable: bool = False,
        in_this_task: bool = False,
    ) -> T:
        if self.loaded:
            self.check_usable()
            raise UnsupportedError(
                f"{doing}: {redact(self._source)} is MLflow's file store, which is only read; move "
                f"it into a database with: asyncstore migrate {redact(self._source)} "
                "sqlite:///mlflow.db"
            )
        return await super().write(doing, body, repeatable=repeatable, in_this_task=in_this_task)


class FileMetadataStore(SqlMetadataStore):
    """What MLflow's file store holds, for reading; opened by `MetadataStore.open`."""

    read_only = True


async def open_file_store(uri: str) -> FileMetadataStore:
    """Open a directory that MLflow's file store wrote, to read it.

    Everything in it is loaded into a database in memory, by the code that `asyncstore migrate`
    uses, so that every method that reads works as on any other database. What others write to the
    directory later is not seen, and every method that writes raises UnsupportedError. A directory
    of many gigabytes is better migrated.

    Args:
        uri: A path or a `file:` URI.

    Raises:
        NotFoundError: The directory does not exist.
        InvalidParameterError: It is not a directory of MLflow's file store.
    """
    source = local_path(uri)
    await check_source(source)

    async def open_() -> FileMetadataStore:
        database = LoadedDatabase(uri)
        await database.connect()
        try:
            # The default experiment is the directory's own, if it has one.
            tables = await prepare(database, str(source))
            store = FileMetadataStore(database, tables, str(source))
            await database.write(
                "loading", lambda connection: connection.execute(delete(tables.experiments))
            )
            await migrate(source, store, warn=_logger.warning)
        except BaseException:
            await shielded(database.aclose, within=CLOSE_WITHIN)
            raise
        database.loaded = True
        return store

    return await opened_in_own_task(open_, close_within=CLOSE_WITHIN)
