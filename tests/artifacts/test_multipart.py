from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncstore.errors import InvalidParameterError
from asyncstore.multipart import Part, plan_parts

MIB = 1024 * 1024


@given(
    size=st.integers(1, 10**14),
    part_size=st.integers(10**9, 10**14),
    min_part_size=st.integers(1, 10**10),
    max_parts=st.none() | st.integers(1, 10_000),
)
def test_parts_cover_a_file_exactly_once(
    size: int, part_size: int, min_part_size: int, max_parts: int | None
) -> None:
    parts = list(
        plan_parts(size, part_size, min_part_size=min_part_size, max_parts=max_parts)
        if size // part_size < 10_000
        else []
    )
    if not parts:
        return
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert parts[0].offset == 0
    for before, after in itertools.pairwise(parts):
        assert after.offset == before.offset + before.size
    assert parts[-1].offset + parts[-1].size == size
    assert len({part.size for part in parts[:-1]}) <= 1
    assert 0 < parts[-1].size <= parts[0].size
    assert all(part.size >= max(min_part_size, part_size) for part in parts[:-1])
    assert max_parts is None or len(parts) <= max_parts


@given(size=st.integers(1, 5 * 2**40))
def test_a_file_of_any_size_fits_in_s3(size: int) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html: 5 TiB, 10,000 parts."""
    parts = list(plan_parts(size, 8 * MIB, min_part_size=5 * MIB, max_parts=10_000))
    assert len(parts) <= 10_000
    assert all(5 * MIB <= part.size <= 5 * 1024 * MIB for part in parts[:-1])
    assert sum(part.size for part in parts) == size


def test_plans() -> None:
    assert list(plan_parts(10, 4)) == [Part(1, 0, 4), Part(2, 4, 4), Part(3, 8, 2)]
    assert list(plan_parts(8, 4)) == [Part(1, 0, 4), Part(2, 4, 4)]
    assert list(plan_parts(3, 4)) == [Part(1, 0, 3)]
    assert list(plan_parts(10, 1, min_part_size=6)) == [Part(1, 0, 6), Part(2, 6, 4)]
    assert [part.size for part in plan_parts(10, 1, max_parts=3)] == [4, 4, 2]


@pytest.mark.parametrize(("size", "part_size"), [(0, 1), (1, 0), (-1, 1), (1, -1)])
def test_sizes_that_make_no_sense(size: int, part_size: int) -> None:
    with pytest.raises(InvalidParameterError):
        list(plan_parts(size, part_size))
