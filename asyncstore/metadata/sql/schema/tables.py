"""MLflow's tables as SQLAlchemy tables, from the snapshot that `scripts/snapshot_schema.py` made.

One set of tables serves every dialect. Where the snapshot differs between dialects (a value with
`$sqlite`, `$postgresql`, ...), the differences are mostly two spellings of one meaning, of which
SQLite's is the one that the other dialects also understand; the rest is handled here by name.
"""

from __future__ import annotations

import json
import re
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
)
from sqlalchemy.types import TypeEngine

__all__ = [
    "EARLIER_REVISIONS",
    "METADATA",
    "MLFLOW_VERSION",
    "REVISION",
    "ROWS",
    "SNAPSHOT",
    "STATEMENTS",
]

SNAPSHOT: dict[str, Any] = json.loads(
    resources.files(__package__).joinpath("mlflow-3.17.2.json").read_text()
)
MLFLOW_VERSION: str = SNAPSHOT["mlflow"]
REVISION: str = SNAPSHOT["revision"]
EARLIER_REVISIONS = frozenset[str](SNAPSHOT["earlier_revisions"])
# Rows that MLflow's migrations insert, by table.
ROWS: dict[str, list[dict[str, Any]]] = SNAPSHOT["rows"]
# Triggers, by dialect.
STATEMENTS: dict[str, list[str]] = SNAPSHOT["statements"]

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


def _build() -> MetaData:
    metadata = MetaData()
    for name, table in SNAPSHOT["tables"].items():
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
    return metadata


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


METADATA = _build()
alembic_version = METADATA.tables["alembic_version"]
experiments = METADATA.tables["experiments"]
experiment_tags = METADATA.tables["experiment_tags"]
runs = METADATA.tables["runs"]
metrics = METADATA.tables["metrics"]
latest_metrics = METADATA.tables["latest_metrics"]
params = METADATA.tables["params"]
tags = METADATA.tables["tags"]
datasets = METADATA.tables["datasets"]
inputs = METADATA.tables["inputs"]
input_tags = METADATA.tables["input_tags"]
