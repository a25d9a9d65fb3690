"""The package stays light, and its rooms know only the rooms below."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "asyncstore"
HEAVY = {
    "aiohttp",
    "aiomysql",
    "asyncssh",
    "azure",
    "gcsfs",
    "hdfs_native",
    "aiobotocore",
    "aiosqlite",
    "botocore",
    "click",
    "fastapi",
    "fsspec",
    "lark",
    "mlflow",
    "msgspec",
    "numpy",
    "psycopg",
    "rich",
    "s3fs",
    "sklearn",
    "sqlalchemy",
    "uvicorn",
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def _imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_package_brings_no_library_of_a_storage_a_database_or_the_command_line() -> (
    None
):
    assert not _imported_by("import asyncstore") & HEAVY


def test_the_client_brings_no_library_of_a_storage_or_a_database() -> None:
    assert not _imported_by("import asyncstore; asyncstore.Client") & (HEAVY - {"fsspec"})


class _Table:
    """The table of rooms in docs/architecture.md."""

    def __init__(self) -> None:
        self._room_of: dict[str, str] = {}
        self._below: dict[str, set[str]] = {}
        text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| ([\w ]+) \| (`.*?) \|(.*?)\|$", text, re.MULTILINE)
        aliases = {"cli": "command line", "testing": "test kit"}
        for room, modules, below in rows:
            for module in re.findall(r"`(.+?)`", modules):
                self._room_of[f"asyncstore.{module}"] = room
            names = re.findall(r"`(.+?)`", below)
            self._below[room] = {room} | {aliases.get(name, name) for name in names}
        assert len(rows) == 13
        assert set().union(*self._below.values()) == set(self._below)

    def room_of(self, module: str) -> str | None:
        """The room of the longest prefix that the table names; the package itself has none."""
        while module != "asyncstore":
            if module in self._room_of:
                return self._room_of[module]
            module = module.rpartition(".")[0]
        return None

    def allows(self, importer: str, imported: str) -> bool:
        room, other = self.room_of(importer), self.room_of(imported)
        assert room is not None, f"{importer} is in no room of docs/architecture.md"
        return other is None or other in self._below[room]


def _runtime_imports(tree: ast.AST) -> Iterator[str]:
    """Names that are imported when the code runs, wherever the import stands."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module
        yield from _runtime_imports(node)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"asyncstore"}))
def test_imports_point_downward(module: str) -> None:
    table = _Table()
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    wrong = [
        name
        for name in _runtime_imports(tree)
        if name.partition(".")[0] == "asyncstore" and not table.allows(module, name)
    ]
    assert not wrong, f"{module} may not import {wrong}"


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        (
            "sqlalchemy",
            ("asyncstore.databases", "asyncstore.metadata.sql", "asyncstore.filesystems.sql"),
        ),
        ("lark", ("asyncstore.metadata.filters",)),
        ("click", ("asyncstore.cli",)),
        ("fastapi", ("asyncstore.server",)),
        ("msgspec", ("asyncstore.server",)),
        ("uvicorn", ("asyncstore.server",)),
        ("rich", ("asyncstore.cli",)),
        ("mlflow", ("asyncstore.mlflow_plugin",)),
        ("s3fs", ("asyncstore.backends.s3",)),
        ("azure", ("asyncstore.backends.azure",)),
        ("gcsfs", ("asyncstore.backends.gcs",)),
        ("asyncssh", ("asyncstore.backends.sftp",)),
        ("hdfs_native", ("asyncstore.backends.hdfs",)),
    ],
)
def test_a_library_is_imported_in_its_room_only(library: str, rooms: tuple[str, ...]) -> None:
    users = {
        module
        for module, path in MODULES.items()
        for name in _runtime_imports(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(".")[0] == library
    }
    assert not {user for user in users if not user.startswith(rooms)} if rooms else not users


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")
    }
    assert readers == {"asyncstore.settings"}


def test_every_exported_name_is_there() -> None:
    import asyncstore

    for name in asyncstore.__all__:
        assert getattr(asyncstore, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = asyncstore.no_such_name
