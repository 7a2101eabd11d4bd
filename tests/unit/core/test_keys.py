"""Keys: one encoding for topic keys, group_by and table keys (formats.md "Keys")."""

from __future__ import annotations

import dataclasses
import enum
import math
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.errors import KeyRefusedError
from headwater.core.keys import canonical_key, decode_key, encode_key, key_text


class Place(msgspec.Struct):
    city: str
    floor: int


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("key", "data"),
    [
        (None, None),
        (b"", b""),
        ("", b""),
        (b"\xff\x00", b"\xff\x00"),
        (bytearray(b"ab"), b"ab"),
        ("a\0b", b"a\0b"),
        ("é", b"\xc3\xa9"),
        (900, b"900"),
        ("900", b"900"),
        (-(2**70), b"-1180591620717411303424"),
        (True, b"true"),
        (False, b"false"),
        (1.0, b"1.0"),
        (0.1, b"0.1"),
        (-0.0, b"-0.0"),
        (("a", 1), b'["a",1]'),
        (["a", 1], b'["a",1]'),
        ((None, "null"), b'[null,"null"]'),
        ({"b": 1, "a": {"d": 1, "c": 2}}, b'{"a":{"c":2,"d":1},"b":1}'),
        (Place("Oslo", 2), b'{"city":"Oslo","floor":2}'),
        ((Place("Oslo", 2), 1), b'[{"city":"Oslo","floor":2},1]'),
        (Colour.RED, b"red"),
        (Level.HIGH, b"3"),
    ],
)
def test_each_kind_of_key_has_the_bytes_of_the_formats_page(key: Any, data: bytes | None) -> None:
    assert encode_key(key) == data


@pytest.mark.parametrize(
    "key",
    [
        math.nan,
        math.inf,
        (1, math.nan),
        {"a": [-math.inf]},
        "\ud800",
        ("\ud800",),
        object(),
        {1: 2},
        {"a": object()},
    ],
)
def test_what_has_no_one_encoding_is_refused_as_a_key(key: Any) -> None:
    with pytest.raises(KeyRefusedError, match="can't be encoded"):
        encode_key(key)


def test_a_key_nested_too_deeply_is_refused_and_not_a_crash() -> None:
    key: list[Any] = []
    for _ in range(100_000):
        key = [key]
    with pytest.raises(KeyRefusedError, match="nested too deeply"):
        encode_key(key)
    while key:  # taken apart by hand: freeing it at once recurses in C
        key = key.pop()


@given(st.text())
def test_text_keys_come_back(key: str) -> None:
    data = encode_key(key)
    assert decode_key(data, str) == decode_key(data) == key
    assert canonical_key(key) == key_text(key.encode()) == key


@given(st.binary())
def test_bytes_keys_come_back(key: bytes) -> None:
    assert encode_key(key) == key
    assert decode_key(key, bytes) == key
    shown = decode_key(key)
    assert encode_key(shown) == key
    assert canonical_key(key) == shown == key_text(key)


@given(st.integers())
def test_whole_numbers_come_back_and_share_a_home_with_their_text(key: int) -> None:
    assert decode_key(encode_key(key), int) == key
    assert encode_key(str(key)) == encode_key(key)
    assert canonical_key(key) == str(key)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_exactly(key: float) -> None:
    back = decode_key(encode_key(key), float)
    assert math.copysign(1, back) == math.copysign(1, key)
    assert back == key


@given(st.tuples(st.text(), st.integers(-(2**63), 2**64 - 1), st.booleans(), st.none()))
def test_composite_keys_come_back(key: tuple[str, int, bool, None]) -> None:
    assert decode_key(encode_key(key), tuple[str, int, bool, None]) == key


@given(st.dictionaries(st.text(), st.integers(0, 9)), st.randoms())
def test_the_order_in_a_dict_does_not_matter(key: dict[str, int], random: Any) -> None:
    items = list(key.items())
    random.shuffle(items)
    assert encode_key(dict(items)) == encode_key(key)


def test_struct_keys_come_back() -> None:
    assert decode_key(encode_key(Place("Oslo", 2)), Place) == Place("Oslo", 2)
    assert decode_key(None, Place) is None


def test_dataclass_keys_come_back() -> None:
    @dataclasses.dataclass
    class Point:
        x: int

    assert encode_key(Point(1)) == b'{"x":1}'
    assert decode_key(b'{"x":1}', Point) == Point(1)


@pytest.mark.parametrize(
    "data", [b"007", b"+7", b" 7", b"7 ", b"1_000", b"-0", b"x", b"", "٣".encode(), b"1.0"]
)
def test_a_number_written_otherwise_is_another_key_and_refused_as_int(data: bytes) -> None:
    with pytest.raises(KeyRefusedError, match="can't be read as int"):
        decode_key(data, int)


@pytest.mark.parametrize(
    ("data", "key_type"), [(b"\xff", str), (b"x", float), (b"1e400", float), (b"{}", Place), (b"1", bool)]
)
def test_a_key_of_another_type_is_refused_with_what_was_found(data: bytes, key_type: Any) -> None:
    with pytest.raises(KeyRefusedError, match="declare another key_type"):
        decode_key(data, key_type)


def test_distinct_bytes_stay_distinct_in_the_caches() -> None:
    keys = [
        b"",
        b"0",
        b"00",
        b"a",
        b"a\0",
        b"a\0b",
        "caf\u00e9".encode(),
        "cafe\u0301".encode(),
        b"\xff",
        b"None",
        b"null",
    ]
    assert len({key_text(key) for key in keys}) == len(keys)


def test_sets_in_keys_do_not_depend_on_the_hash_seed() -> None:
    """I2: byte equality in any PYTHONHASHSEED."""
    code = "from headwater.core.keys import encode_key; print(encode_key(({'a', 'b', 'c', 'd'}, {'y': 1, 'x': 2})))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, timeout=60,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
        ).stdout
        for seed in ("0", "1", "7")
    }  # fmt: skip
    assert seen == {b'b\'[["a","b","c","d"],{"x":2,"y":1}]\'\n'}
