"""Changelog blobs: every change comes back as it went in, in order; blobs are small; what is no blob is refused."""

from __future__ import annotations

import random
from array import array
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.errors import KeyRefusedError, RecoveryError
from headwater.table import changelog
from headwater.table.changelog import (
    BLOB_BYTES_MAX,
    SCHEMA,
    changes_of,
    decode_changes,
    encode,
    encode_changes,
    thin,
)

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
ROW = st.tuples(
    st.binary(max_size=20),
    st.none() | st.binary(max_size=30),
    INT64,
    st.tuples(st.integers(0, 300), INT32, INT64, INT32),
)


def encode_rows(rows: list[Any]) -> list[bytes]:
    causes = tuple([row[3][at] for row in rows] for at in range(4))
    return encode_changes([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], causes)  # type: ignore[arg-type]


def decode_rows(blobs: list[bytes]) -> list[Any]:
    return [row for blob in blobs for row in decode_changes(blob).rows()]


@given(st.lists(ROW, max_size=50))
def test_changes_come_back_as_they_went_in_and_in_order(rows: list[Any]) -> None:
    assert decode_rows(encode_rows(rows)) == rows


def test_no_changes_make_no_blob() -> None:
    assert encode_rows([]) == []


def test_null_empty_and_json_null_are_told_apart() -> None:
    values = [None, b"", b"null", b"0"]
    blob = encode_changes([b"k"] * 4, values, 7, (0, 0, 0, 0))[0]
    assert decode_changes(blob).values.to_pylist() == values


@given(st.lists(st.tuples(st.integers(0, 60_000), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=30)
def test_blobs_fit_their_greatest_size_and_lose_nothing(sizes: list[tuple[int, bool]]) -> None:
    random_bytes = random.Random(len(sizes)).randbytes  # what lz4 can't make smaller
    rows = [
        (random_bytes(size if flip else 3), random_bytes(size), at, (0, 0, at, 0))
        for at, (size, flip) in enumerate(sizes)
    ]
    blobs = encode_rows(rows)
    assert all(len(blob) <= BLOB_BYTES_MAX for blob in blobs)
    assert decode_rows(blobs) == rows


def test_many_small_changes_fill_their_blobs() -> None:
    rows = [(b"k%d" % at, b"v", at, (0, 0, at, 0)) for at in range(60_000)]
    blobs = encode_rows(rows)
    assert 5 <= len(blobs) <= 8
    assert decode_rows(blobs) == rows


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_change_above_the_greatest_size_is_alone_in_its_blob(at: int) -> None:
    rows = [(b"a", b"1", 1, (0, 0, 1, 0)), (b"b", b"2", 2, (0, 0, 2, 0))]
    large = (b"large", random.Random(1).randbytes(BLOB_BYTES_MAX + 1), 3, (0, 0, 3, 0))
    rows.insert(at, large)
    blobs = encode_rows(rows)
    assert decode_rows(blobs) == rows
    alone = [blob for blob in blobs if len(blob) > BLOB_BYTES_MAX]
    assert [decode_changes(blob).keys.to_pylist() for blob in alone] == [[b"large"]]
    assert len(blobs) == (3 if at == 1 else 2)


def test_columns_may_be_lists_arrays_arrow_or_one_number() -> None:
    keys, values, times, offsets = [b"a", b"b"], [b"1", None], [5, 6], [10, 11]
    expected = decode_rows(encode_changes(keys, values, times, ([1, 1], [2, 2], offsets, [0, 0])))
    assert expected == [(b"a", b"1", 5, (1, 2, 10, 0)), (b"b", None, 6, (1, 2, 11, 0))]
    forms: list[Any] = [
        (keys, values, array("q", times), (1, 2, array("q", offsets), 0)),
        (pa.array(keys, pa.binary()), pa.array(values, pa.binary()), pa.array(times), (1, 2, range(10, 12), 0)),
        (pa.chunked_array([[b"a"], [b"b"]], pa.binary()), pa.array(values, pa.large_binary()), (5, 6),
         (pa.array([1, 1], pa.int8()), array("i", [2, 2]), pa.array(offsets), (0, 0))),
        (pa.array([b"x", *keys], pa.binary())[1:], pa.array([b"x", *values], pa.binary())[1:], times, (1, 2, offsets, 0)),
    ]  # fmt: skip
    for form in forms:
        assert decode_rows(encode_changes(*form)) == expected


def test_a_blob_tells_its_rows_and_greatest_task_time() -> None:
    (blob,) = encode(changes_of([b"a", b"b", b"c"], [b"1"] * 3, [-5, 9, 4], (0, 0, 0, 0)))
    assert (blob.rows, blob.task_time_max) == (3, 9)


def test_a_blob_has_exactly_the_columns_of_the_format() -> None:
    """formats.md "Changelog blob": any Arrow reader finds them under these names."""
    schema = pa.ipc.open_stream(encode_rows([(b"a", b"1", 2, (3, 4, 5, 6))])[0]).schema
    assert schema.names == ["key", "value", "task_time", "cause"]
    assert [str(field.type) for field in schema][:3] == ["binary", "binary", "int64"]
    assert [field.name for field in schema.field("cause").type] == ["input", "partition", "offset", "emit"]


def test_null_keys_and_unequal_columns_are_refused() -> None:
    with pytest.raises(KeyRefusedError, match="null key"):
        encode_changes([b"a", None], [b"1", b"2"], [1, 2], (0, 0, 0, 0))
    with pytest.raises(ValueError, match=r"unequal lengths \[1, 2\]"):
        encode_changes([b"a", b"b"], [b"1"], [1, 2], (0, 0, 0, 0))
    with pytest.raises(ValueError, match="unequal lengths"):
        encode_changes([b"a", b"b"], [b"1", b"2"], [1, 2], (0, 0, [1, 2, 3], 0))


def _stream(columns: dict[str, Any]) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "blob", [b"", b"nonsense", b"\xff\xff\xff\xff\x10\x00\x00\x00", b"\x00" * 100, b'{"a": 1}']
)
def test_what_is_no_blob_is_refused(blob: bytes) -> None:
    with pytest.raises(RecoveryError, match=f"a changelog blob of {len(blob)} bytes can't be read"):
        decode_changes(blob)


def test_a_blob_with_other_columns_is_refused_with_both() -> None:
    with pytest.raises(
        RecoveryError, match=r"has the columns 'other: int64', expected 'key: binary not null"
    ):
        decode_changes(_stream({"other": [1]}))


def test_every_cut_off_blob_is_refused_or_whole() -> None:
    blob = encode_rows([(b"key%d" % at, b"value", at, (0, 0, at, 0)) for at in range(50)])[0]
    whole = decode_changes(blob).rows()
    refused = 0
    for length in range(0, len(blob), 7):
        try:
            assert decode_changes(blob[:length]).rows() == whole
        except RecoveryError:
            refused += 1
    assert refused > len(blob) // 7 - 4  # the last 8 bytes only say that nothing follows


@given(st.data())
@settings(max_examples=150)
def test_a_flipped_byte_never_raises_anything_but_a_recovery_error(data: st.DataObject) -> None:
    blob = bytearray(encode_rows([(b"key%d" % at, b"value", at, (0, 0, at, 0)) for at in range(300)])[0])
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode_changes(bytes(blob)).rows()
    except RecoveryError as error:
        assert "changelog blob" in str(error)  # noqa: PT017


CHANGE = st.tuples(
    st.sampled_from([b"a", b"b", b""]), st.none() | st.sampled_from([b"", b"0"]), st.integers(-3000, 3000)
)


def _naive_thin(rows: list[Any], group: Any) -> list[Any]:
    last = {group(row): at for at, row in enumerate(rows)}
    return [rows[at] for at in sorted(last.values())]


@given(st.lists(CHANGE, max_size=40), st.sampled_from([1, 60, 1000]))
def test_a_thinned_history_keeps_the_last_change_per_key_and_step(changes: list[Any], step_ms: int) -> None:
    rows = [(key, value, time, (0, 0, at, 0)) for at, (key, value, time) in enumerate(changes)]
    columns = changes_of(
        [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], (0, 0, range(len(rows)), 0)
    )
    assert thin(columns, "exact").rows() == rows
    assert thin(columns, None).rows() == _naive_thin(rows, lambda row: row[0])
    stepped = thin(columns, timedelta(milliseconds=step_ms)).rows()
    assert stepped == _naive_thin(rows, lambda row: (row[0], row[2] // step_ms))


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=10), st.sampled_from([1, 7, 86_400_000])
)
def test_steps_hold_for_all_64_bit_times(times: list[int], step_ms: int) -> None:
    columns = changes_of([b"k"] * len(times), [b"v"] * len(times), times, (0, 0, range(len(times)), 0))
    rows = thin(columns, timedelta(milliseconds=step_ms)).rows()
    assert rows == _naive_thin(columns.rows(), lambda row: row[2] // step_ms)


def test_a_history_below_a_millisecond_is_refused() -> None:
    with pytest.raises(ValueError, match="is no step of task time"):
        thin(changes_of([b"a"], [b"1"], 1, (0, 0, 0, 0)), timedelta(0))


def test_history_none_makes_a_blob_of_the_last_changes() -> None:
    (blob,) = encode_changes(
        [b"a", b"b", b"a"], [b"1", b"2", None], [1, 2, 3], (0, 0, [1, 2, 3], 0), history=None
    )
    assert [row[:2] for row in decode_changes(blob).rows()] == [(b"b", b"2"), (b"a", None)]


def test_small_numbers_and_large_ones_share_a_type() -> None:
    for numbers in ([0, 255], [0, 256], [-1, 2**31 - 1]):
        assert changelog._small(numbers, 2).to_pylist() == numbers
    assert SCHEMA.field("cause").type.field("offset").type == pa.int64()
