"""The canonical dump: equal tables give equal bytes, and no dump ever changes a value."""

from __future__ import annotations

import base64
import hashlib
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.table.dump import (
    _exact_json,
    canonical_json,
    canonical_rows,
    dump_sha256,
    merge_partitions,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


def exactly(data: bytes | str) -> Any:
    """Read JSON so that 1, 1.0 and 10e-1 differ in nothing but spelling, and no digit is lost."""
    return json.loads(data, parse_float=Decimal, parse_int=Decimal)


@given(JSON, st.booleans(), st.sampled_from([None, 2]))
def test_a_canonical_value_is_the_same_value_whatever_its_spelling(
    value: Any, escaped: bool, indent: int | None
) -> None:
    spelled = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
    canonical = canonical_json(spelled)
    assert canonical is not None
    assert exactly(canonical) == exactly(spelled)
    assert canonical == canonical_json(canonical) == canonical_json(msgspec.json.encode(value))
    assert canonical == _exact_json(spelled), "the quick way and the exact way must agree"


@pytest.mark.parametrize(
    ("stored", "canonical"),
    [
        (b"18446744073709551617", b"18446744073709551617"),
        (b'{"n": 123456789012345678901234567890}', b'{"n":123456789012345678901234567890}'),
        (b"9" * 5000, b"9" * 5000),
        (b"1", b"1"),
        (b"1.0", b"1.0"),
        (b"1.50", b"1.5"),
        (b" 0.1 ", b"0.1"),
        (b"1e2", b"100.0"),
        (b"1E+16", b"1e16"),
        (b"-0", b"-0"),
        (b"-0.0", b"-0.0"),
        (b"[ -0 , -0.0 ]", b"[-0,-0.0]"),
        (b"0.30000000000000004", b"0.30000000000000004"),
        (b"[ 0.30000000000000004 ]", b"[0.30000000000000004]"),
        (b"0.1000000000000000055511151231257827", b"0.1000000000000000055511151231257827"),
        (b"1e400", b"1e400"),
        (b'{"b": 1e400, "a": 1e-400}', b'{"a":1e-400,"b":1e400}'),
        (b"1e-99999999999999999999", b"1e-99999999999999999999"),
        (b'{"b":1,"a":{"d":2,"c":[{"z":0,"y":0}]}}', b'{"a":{"c":[{"y":0,"z":0}],"d":2},"b":1}'),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (rb'"\u00e9\ud83d\ude00\u0000\/"', '"é😀\\u0000/"'.encode()),
        (rb'"\ud800"', rb'"\ud800"'),
        (b"null", b"null"),
        (b'""', b'""'),
    ],
)  # fmt: skip
def test_values_have_one_spelling_and_lose_no_digit(stored: bytes, canonical: bytes) -> None:
    assert canonical_json(stored) == canonical


@pytest.mark.parametrize(
    "stored",
    [b"", b"{", b"NaN", b"[Infinity]", b"-Infinity", b"\xff", b'"\xed\xa0\x80"', b"\xef\xbb\xbf1", b"1 2", b"'a'", b"01",
     b"1\x00", '"a"'.encode("utf-16"), b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_json_in_utf8_is_shown_as_base64(stored: bytes) -> None:
    assert canonical_json(stored) is None
    (row,) = canonical_rows({b"k": stored})
    assert json.loads(row) == {"key": "k", "value_b64": base64.b64encode(stored).decode()}


def test_rows_are_sorted_by_key_bytes_and_keys_that_are_no_text_are_base64() -> None:
    rows = {b"b": b"2", b"\xff": b'{"b":1,"a":2}', b"": b"null", "é".encode(): b"0", b"a\x00": b'""'}
    assert list(canonical_rows(rows)) == [
        '{"key":"","value":null}',
        '{"key":"a\\u0000","value":""}',
        '{"key":"b","value":2}',
        '{"key":"é","value":0}',
        '{"key_b64":"/w==","value":{"a":2,"b":1}}',
    ]


def test_raw_rows_hold_the_stored_bytes() -> None:
    rows = {b"k": b' {"b":1, "a":1e400}', b"": b""}
    assert list(canonical_rows(rows, raw=True)) == [
        '{"key_b64":"","value_b64":""}',
        '{"key_b64":"aw==","value_b64":"IHsiYiI6MSwgImEiOjFlNDAwfQ=="}',
    ]


def test_a_key_type_decides_how_keys_are_shown_but_not_their_order() -> None:
    rows = {b"9": b"1", b"10": b"2", b"x": b"3"}
    assert list(canonical_rows(rows, key_json=lambda key: int(key))) == [
        '{"key":10,"value":2}',
        '{"key":9,"value":1}',
        '{"key_b64":"eA==","value":3}',
    ]


def test_the_checksum_is_of_the_lines_and_tells_any_difference() -> None:
    rows = {b"a": b"1", b"b": b"2"}
    lines = "".join(line + "\n" for line in canonical_rows(rows))
    assert dump_sha256(rows) == hashlib.sha256(lines.encode()).hexdigest()
    assert dump_sha256(rows) == dump_sha256(iter(sorted(rows.items())))
    others = [{b"a": b"1"}, {b"a": b"1", b"b": b"2.0"}, {b"a": b"2", b"b": b"1"}, {b"a": b"1", b"b": b'"2"'}]
    assert len({dump_sha256(rows), *map(dump_sha256, others)}) == 5
    assert dump_sha256(rows, raw=True) != dump_sha256(rows)


def test_items_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="not in key order: b'a' after b'b'"):
        list(canonical_rows([(b"b", b"1"), (b"a", b"2")]))


def test_partitions_are_merged_by_key() -> None:
    parts = [[(b"a", b"1"), (b"d", b"2")], [(b"b", b"3")], []]
    assert list(merge_partitions(parts)) == [(b"a", b"1"), (b"b", b"3"), (b"d", b"2")]
