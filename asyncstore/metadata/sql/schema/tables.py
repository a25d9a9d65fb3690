"""MLflow's tables as SQLAlchemy tables, from the snapshots that `scripts/snapshot_schema.py` made.

One set of tables serves every dialect. Where a snapshot differs between dialects (a value with
`$sqlite`, `$postgresql`), the differences are mostly two spellings of one meaning, of which
SQLite's is the one that the other dialects also understand; the rest is handled here by name. MySQL
creates its tables with statements of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache, cached_property
from importlib import resources
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Computed,
    Date,
    Float,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.types import TypeEngine

from asyncstore.errors import UnsupportedError

__all__ = ["SNAPSHOTS", "Tables", "load"]

#: Versions of MLflow whose schema is known, oldest first.
SNAPSHOTS = ("2.22.5", "3.6.0", "3.17.2", "3.18.0")
DEFAULT_WORKSPACE = "default"

_TYPES: dict[str, TypeEngine[Any]] = {
    "BIGINT": BigInteger(),
    "BLOB": LargeBinary(),
    "BOOLEAN": Boolean(),
    "DATE": Date(),
    "FLOAT": Float(),
    "INTEGER": Integer(),
    "JSON": JSON(),
    "TEXT": Text(),
}
_BOOLEAN_STAND_IN = re.compile(r"\w+ IN \(0, 1\)")


@cache
def load(version: str) -> Tables:
    """The schema of a version of MLflow, one of `SNAPSHOTS`."""
    snapshot = resources.files(__package__).joinpath(f"mlflow-{version}.json")
    return Tables(json.loads(snapshot.read_text(encoding="utf-8")))


class Tables:
    """The tables of one revision of MLflow's schema, each an attribute.

    Args:
        snapshot: What `scripts/snapshot_schema.py` wrote.
    """

    def __init__(self, snapshot: Mapping[str, Any]) -> None:
        self.snapshot = snapshot
        self.mlflow_version: str = snapshot["mlflow"]
        self.revision: str = snapshot["revision"]
        # Oldest first; MLflow's migrations lead from each of them to `revision`.
        self.earlier_revisions: list[str] = snapshot["earlier_revisions"]
        # Rows that MLflow's migrations insert, by table.
        self.rows: dict[str, list[dict[str, Any]]] = snapshot["rows"]
        # Triggers, by dialect; on MySQL the tables too.
        self.statements: dict[str, list[str]] = snapshot["statements"]
        self.names = frozenset[str](snapshot["tables"])

    @cached_property
    def metadata(self) -> MetaData:
        """All of the tables."""
        metadata = MetaData()
        for name, table in self.snapshot["tables"].items():
            _build(metadata, name, table)
        return metadata

    def __getattr__(self, name: str) -> Table:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self.names:
            raise UnsupportedError(
                f"the database is at the schema of MLflow {self.mlflow_version}, which has no "
                f"{name}; upgrade it with: asyncstore db upgrade"
            )
        table = self.metadata.tables[name]
        # Found without coming here the next time.
        self.__dict__[name] = table
        return table

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def known(self, table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row without the columns that this revision does not have yet."""
        return {name: value for name, value in row.items() if name in table.c}

    def keyed(self, table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row with its workspace, where that is part of a key, which an upsert must name."""
        if "workspace" in table.c:
            return {"workspace": DEFAULT_WORKSPACE, **row}
        return dict(row)

    def in_workspace(self, table: Table) -> ColumnElement[bool]:
        """Whether a row is in MLflow's default workspace, the only one that asyncstore knows.

        Keys and indexes begin with the workspace since MLflow has it.
        """
        if "workspace" in table.c:
            return table.c.workspace == DEFAULT_WORKSPACE
        return true()


def _build(metadata: MetaData, name: str, table: Mapping[str, Any]) -> None:
    described = {key: _portable(value) for key, value in table.items()}
    Table(
        name,
        metadata,
        *(_column(column, value) for column, value in described["columns"].items()),
        PrimaryKeyConstraint(
            *described["primary_key"]["columns"], name=described["primary_key"]["name"]
        ),
        *(
            ForeignKeyConstraint(
                key["columns"],
                key["refers_to"],
                name=key["name"],
                ondelete=key.get("ondelete"),
                onupdate=key.get("onupdate"),
            )
            for key in described["foreign_keys"]
        ),
        *(
            UniqueConstraint(*unique["columns"], name=unique["name"])
            for unique in described["unique"]
        ),
        *(_check(check) for check in described["checks"]),
    )
    for index in _indexes(table["indexes"]):
        _index(metadata.tables[name], index)


def _portable(value: Any) -> Any:
    return value["$sqlite"] if isinstance(value, dict) and "$sqlite" in value else value


def _column(name: str, value: dict[str, Any]) -> Column[Any]:
    described = {key: _portable(item) for key, item in _portable(value).items()}
    arguments: list[Any] = []
    if "computed" in described:
        computed = {key: _portable(item) for key, item in described["computed"].items()}
        arguments.append(Computed(computed["sqltext"], persisted=computed["persisted"]))
    kind = _type(described["type"])
    if "identity" in value.get("$postgresql", ()):
        arguments.append(Identity())
        kind = _type(value["$postgresql"]["type"]).with_variant(kind, "sqlite")
    return Column(
        name,
        kind,
        *arguments,
        nullable=described["nullable"],
        server_default=_default(kind, described.get("default")),
    )


def _default(kind: TypeEngine[Any], default: str | None) -> ColumnElement[Any] | TextClause | None:
    if default == "0" and isinstance(kind, Boolean):
        return false()
    return None if default is None else text(default)


def _type(name: str) -> TypeEngine[Any]:
    if found := re.fullmatch(r"VARCHAR\((\d+)\)", name):
        return String(int(found[1]))
    return _TYPES[name]


def _check(check: dict[str, Any]) -> CheckConstraint:
    constraint = CheckConstraint(check["sqltext"], name=check["name"])
    if _BOOLEAN_STAND_IN.fullmatch(check["sqltext"]):
        return constraint.ddl_if(dialect="sqlite")
    return constraint


def _indexes(value: Any) -> list[dict[str, Any]]:
    # PostgreSQL's description says all that SQLite's does, and its own options besides.
    found: list[dict[str, Any]] = (
        value["$postgresql"] if isinstance(value, dict) and "$postgresql" in value else value
    )
    return found


def _index(table: Table, index: dict[str, Any]) -> None:
    options = dict(index.get("options", {}))
    if "postgresql_where" in options:
        options["postgresql_where"] = text(options["postgresql_where"])
    descending = index.get("descending", ())
    columns = [
        table.c[column].desc() if column in descending else table.c[column]
        for column in index["columns"]
    ]
    Index(index["name"], *columns, unique=index["unique"], **options)
