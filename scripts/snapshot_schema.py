"""Write down the database schema of the installed MLflow, for `asyncstore/metadata/sql/schema`.

Run it where MLflow is installed, once for each MLflow whose databases asyncstore is to know:

    python scripts/snapshot_schema.py postgresql+psycopg2://user:password@host/empty_database \
        mysql+pymysql://user:password@host/empty_database

MLflow creates its tables in a temporary SQLite database and in every empty database that the
arguments name; what SQLAlchemy then finds there is written as JSON. Where the databases differ, an
object with the keys `$sqlite`, `$postgresql`, ... stands in place of the value.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import sqlalchemy
from alembic.script import ScriptDirectory  # type: ignore[import-not-found,unused-ignore]  # MLflow's
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

SCHEMA_DIRECTORY = Path(__file__).parent.parent / "asyncstore" / "metadata" / "sql" / "schema"
# Rows that depend on when and where the database was made; asyncstore makes its own.
OWN_ROWS = {"alembic_version", "experiments"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("uris", nargs="*", help="empty databases of other kinds than SQLite")
    parser.add_argument("--output", type=Path, help="file to write; by default beside the others")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        uris = [f"sqlite:///{directory}/mlflow.db", *options.uris]
        found = {}
        for uri in uris:
            SqlAlchemyStore(uri, directory)
            engine = sqlalchemy.create_engine(uri)
            found[engine.dialect.name] = describe(engine)
            engine.dispose()
    statements = {dialect: schema.pop("statements") for dialect, schema in found.items()}
    found.pop("mysql", None)
    snapshot = {
        "mlflow": mlflow.__version__,
        "revision": _head(),
        "earlier_revisions": _earlier_revisions(),
        **merge(found),
        "statements": statements,
    }
    output = options.output or SCHEMA_DIRECTORY / f"mlflow-{mlflow.__version__}.json"
    output.write_text(json.dumps(snapshot, indent=1) + "\n")
    print(f"{output}: revision {snapshot['revision']}, {len(snapshot['tables'])} tables")


def describe(engine: sqlalchemy.Engine) -> dict[str, Any]:
    """Tables, their first rows, and what SQLAlchemy has no words for (triggers) as statements."""
    inspector = sqlalchemy.inspect(engine)
    names = sorted(inspector.get_table_names())
    with engine.connect() as connection:
        rows = {
            name: [dict(row) for row in connection.execute(sqlalchemy.text(query)).mappings()]
            for name in names
            if name not in OWN_ROWS
            for query in [f"SELECT * FROM {engine.dialect.identifier_preparer.quote(name)}"]
        }
    return {
        "tables": {name: _table(inspector, name) for name in names},
        "rows": {name: found for name, found in rows.items() if found},
        "statements": _statements(engine),
    }


def _table(inspector: sqlalchemy.Inspector, name: str) -> dict[str, Any]:
    primary_key = inspector.get_pk_constraint(name)
    return {
        "columns": {
            column["name"]: _column(inspector, dict(column))
            for column in inspector.get_columns(name)
        },
        "primary_key": {
            "name": primary_key["name"],
            "columns": primary_key["constrained_columns"],
        },
        "foreign_keys": _by_name(
            {
                "name": key["name"],
                "columns": key["constrained_columns"],
                "refers_to": [
                    f"{key['referred_table']}.{column}" for column in key["referred_columns"]
                ],
                **key.get("options", {}),
            }
            for key in inspector.get_foreign_keys(name)
        ),
        "unique": _by_name(
            {"name": unique["name"], "columns": unique["column_names"]}
            for unique in inspector.get_unique_constraints(name)
        ),
        "checks": _by_name(
            {"name": check["name"], "sqltext": check["sqltext"]}
            for check in inspector.get_check_constraints(name)
        ),
        "indexes": _by_name(
            _index(inspector, dict(index))
            for index in inspector.get_indexes(name)
            if not index.get("duplicates_constraint")
        ),
    }


def _column(inspector: sqlalchemy.Inspector, column: dict[str, Any]) -> dict[str, Any]:
    described = {
        "type": column["type"].compile(dialect=inspector.dialect),
        "nullable": column["nullable"],
    }
    for key in ("default", "computed", "identity"):
        if column.get(key) is not None:
            described[key] = column[key]
    return described


def _index(inspector: sqlalchemy.Inspector, index: dict[str, Any]) -> dict[str, Any]:
    described = {
        "name": index["name"],
        "columns": index.get("expressions") or index["column_names"],
        "unique": bool(index["unique"]),
    }
    if descending := _descending(inspector, index):
        described["descending"] = descending
    options = {key: value for key, value in index.get("dialect_options", {}).items() if value}
    if options:
        described["options"] = options
    return described


def _descending(inspector: sqlalchemy.Inspector, index: dict[str, Any]) -> list[str]:
    if inspector.dialect.name != "sqlite":
        sorting = index.get("column_sorting", {})
        return [column for column, words in sorting.items() if "desc" in words]
    # SQLAlchemy does not read the order of an index from SQLite.
    with inspector.engine.connect() as connection:
        rows = connection.exec_driver_sql(f'PRAGMA index_xinfo("{index["name"]}")').all()
    return [row.name for row in rows if row.desc and row.key]


def _by_name(items: Any) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: (item["name"] or "", json.dumps(item)))


def _statements(engine: sqlalchemy.Engine) -> list[str]:
    """What asyncstore executes to make the database: everything on MySQL, triggers elsewhere."""
    with engine.connect() as connection:
        if engine.dialect.name == "mysql":
            return [*_mysql_tables(connection), *_mysql_triggers(connection)]
        return _triggers(connection)


def _mysql_tables(connection: sqlalchemy.Connection) -> list[str]:
    # MySQL's types, key names and implied indexes have little in common with the others'.
    tables = sqlalchemy.inspect(connection).get_sorted_table_and_fkc_names()
    found = []
    for name, _ in tables:
        if name is not None:
            row = connection.exec_driver_sql(f"SHOW CREATE TABLE `{name}`").one()
            # The database's character set applies; JSON is what MariaDB writes as LONGTEXT.
            statement = re.sub(r"\) ENGINE=.*$", ")", row[1])
            found.append(
                re.sub(
                    r"longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
                    r"( NOT NULL| DEFAULT NULL) CHECK \(json_valid\(`\w+`\)\)",
                    r"json\1",
                    statement,
                )
            )
    return found


def _mysql_triggers(connection: sqlalchemy.Connection) -> list[str]:
    query = """SELECT concat('CREATE TRIGGER ', trigger_name, ' ', action_timing, ' ',
                             event_manipulation, ' ON ', event_object_table, ' FOR EACH ROW ',
                             action_statement)
               FROM information_schema.triggers WHERE trigger_schema = database()
               ORDER BY trigger_name"""
    return list(connection.exec_driver_sql(query).scalars())


def _triggers(connection: sqlalchemy.Connection) -> list[str]:
    queries = {
        "sqlite": ["SELECT sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"],
        "postgresql": [
            """SELECT pg_get_functiondef(oid) FROM pg_proc
               WHERE pronamespace = 'public'::regnamespace ORDER BY proname""",
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname",
        ],
    }[connection.dialect.name]
    return [
        # Tables are found by the connection's search path.
        text.strip().replace("public.", "")
        for query in queries
        for text in connection.execute(sqlalchemy.text(query)).scalars()
    ]


def merge(values: dict[str, Any]) -> Any:
    """One value where all dialects agree, and `$dialect` keys where they do not."""
    first, *others = values.values()
    if all(other == first for other in others):
        return first
    if all(isinstance(value, dict) for value in values.values()) and all(
        value.keys() == first.keys() for value in others
    ):
        return {key: merge({name: value[key] for name, value in values.items()}) for key in first}
    return {f"${name}": value for name, value in values.items()}


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_get_alembic_config(""))


def _head() -> str:
    (head,) = _script().get_heads()
    return str(head)


def _earlier_revisions() -> list[str]:
    """Every revision but the head, oldest first: what `mlflow db upgrade` can bring up to date."""
    return [script.revision for script in _script().walk_revisions()][:0:-1]


if __name__ == "__main__":
    main()
