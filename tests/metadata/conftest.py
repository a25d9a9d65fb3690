"""A store on each database; every test that takes it runs on all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncstore.metadata import MetadataStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def metadata_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/metadata.db"
    uri: str = request.getfixturevalue(f"{request.param}_uri")
    return uri


@pytest.fixture
async def store(metadata_uri: str, tmp_path: Path) -> AsyncIterator[MetadataStore]:
    async with await MetadataStore.open(metadata_uri, str(tmp_path / "artifacts")) as opened:
        yield opened


@pytest.fixture
async def run_id(store: MetadataStore) -> str:
    return (await store.create_run("0", start_time=1)).info.run_id
