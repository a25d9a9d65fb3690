"""Run as a process of its own: writes to a database and, in one way, never ends."""

from __future__ import annotations

import asyncio
import sys

from asyncstore.artifacts import ArtifactRepository
from asyncstore.multipart import Part

MIB = 1024 * 1024


async def race(uri: str, letter: bytes) -> None:
    """The same paths as others do, whole and in parts."""
    async with ArtifactRepository(uri) as repository:
        for _ in range(6):
            await repository.write_bytes("d/small", letter * 300_000)
            await repository.write_bytes("d/large", letter * (9 * MIB))


async def hang(uri: str, letter: bytes) -> None:
    """Half of a file, and then nothing more."""
    async with ArtifactRepository(uri) as repository:
        upload = await repository.fs.start_upload("f")
        for number in range(3):
            part = Part(number + 1, number * MIB, MIB)
            await upload.upload_part(part, letter * MIB)
        print("half", flush=True)
        await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run({"race": race, "hang": hang}[sys.argv[1]](sys.argv[2], sys.argv[3].encode()))
