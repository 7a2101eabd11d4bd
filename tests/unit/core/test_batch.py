"""Batches against a list of records."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.batch import Append, Batch, TopicPartition

Row = tuple[int, int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]
BYTES = st.none() | st.binary(max_size=3)


@st.composite
def batches(draw: Any) -> tuple[Batch, list[Row]]:
    base = draw(st.integers(0, 50))
    offsets = sorted(draw(st.sets(st.integers(base, base + 20), max_size=10)))
    end = (offsets[-1] + 1 if offsets else base) + draw(st.integers(0, 4))
    headers = st.lists(st.tuples(st.text(max_size=2), BYTES), max_size=2).map(tuple)
    rows: list[Row] = [
        (offset, draw(st.sampled_from([0, -1, 2**63 - 1])), draw(BYTES), draw(BYTES), draw(headers))
        for offset in offsets
    ]
    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], [], []]
    if draw(st.booleans()):
        kinds = (pa.int64(), pa.int64(), pa.binary(), pa.binary())
        columns[:4] = [pa.array(column, kind) for column, kind in zip(columns[:4], kinds, strict=True)]
    if not any(row[4] for row in rows):
        columns[4] = None
    return Batch(
        "t", 1, base, end, columns[0], columns[1], columns[2], columns[3], columns[4], nbytes=100
    ), rows


def rows_of(batch: Batch) -> list[Row]:
    return [
        (*row, batch.headers_at(at))
        for at, row in enumerate(zip(batch.offsets, batch.timestamps, batch.keys, batch.values, strict=True))
    ]


@given(batches())
def test_a_batch_gives_back_its_records(made: tuple[Batch, list[Row]]) -> None:
    batch, rows = made
    assert len(batch) == len(rows)
    assert rows_of(batch) == rows
    assert rows_of(batch) == rows  # converted once, the same the second time


@given(batches(), st.integers(-5, 90), st.integers(-5, 90))
def test_slice_agrees_with_filtering_a_list(made: tuple[Batch, list[Row]], base: int, end: int) -> None:
    """I12: slices tile the offsets as the batch did."""
    batch, rows = made
    part = batch.slice(base, end)
    common = [offset for offset in range(batch.base, batch.next) if base <= offset < end]
    assert rows_of(part) == [row for row in rows if base <= row[0] < end]
    assert part.base <= part.next
    assert batch.base <= part.base
    assert part.next <= batch.next
    assert list(range(part.base, part.next)) == common
    assert 0 <= part.nbytes <= batch.nbytes
    assert rows_of(batch) == rows


@given(batches(), st.lists(st.integers(0, 90), max_size=4))
def test_slices_at_any_cuts_tile_the_batch(made: tuple[Batch, list[Row]], cuts: list[int]) -> None:
    batch, rows = made
    inner = sorted({cut for cut in cuts if batch.base < cut < batch.next})
    bounds = [batch.base, *inner, batch.next]
    parts = [batch.slice(low, high) for low, high in pairwise(bounds)]
    assert [row for part in parts for row in rows_of(part)] == rows
    assert [(part.base, part.next) for part in parts] == list(pairwise(bounds))


def test_an_empty_batch_covers_what_it_says() -> None:
    empty = Batch.empty("t", 0, 5, 9)
    assert (len(empty), empty.base, empty.next, list(empty.offsets), empty.headers) == (0, 5, 9, [], None)
    assert Batch.empty("t", 0, 5).next == 5
    assert repr(empty) == "Batch(t/0@[5, 9), 0 records)"


def test_an_append_counts_its_bytes_whatever_is_null() -> None:
    append = Append("t", 0, [0, 0, 0], [None, b"", b"abc"], [b"12345", None, b""])
    assert len(append) == 3
    assert append.nbytes == 3 + 5 + 3 * 24


@pytest.mark.parametrize(("low", "high"), [(("a", 9), ("b", 0)), (("a", 1), ("a", 2))])
def test_partitions_sort_by_topic_then_number(low: tuple[str, int], high: tuple[str, int]) -> None:
    assert TopicPartition(*low) < TopicPartition(*high)
    assert str(TopicPartition(*low)) == f"{low[0]}/{low[1]}"
