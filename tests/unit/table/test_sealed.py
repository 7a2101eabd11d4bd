"""Sealed changes: columns made of them at once are what would be made of each alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.table.sealed import Sealed, SealedLast, numbers

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(values=st.lists(st.one_of(FINITE, st.integers(), st.booleans()), max_size=30))
def test_numbers_are_written_together_as_each_is_alone(values: list[Any]) -> None:
    assert numbers(values).to_pylist() == [msgspec.json.encode(value) for value in values]


def test_changes_come_back_in_order_and_the_last_of_a_key_is_found() -> None:
    sealed = Sealed()
    sealed.add(["a", "b", b"\xff"], [1.5, 2.5, 3.5], [0, 1, 2])
    sealed.add(["a", "a"], [b"null", None], [4, 4], lambda value: value)
    found = sealed.columns()
    assert found.keys.to_pylist() == [b"a", b"b", b"\xff", b"a", b"a"]
    assert found.values.to_pylist() == [b"1.5", b"2.5", b"3.5", b"null", None]
    assert found.rows.to_pylist() == [0, 1, 2, 4, 4]
    assert sealed.count == 5
    assert [sealed.last_value(key) for key in (b"a", b"b", b"\xff")] == [None, b"2.5", b"3.5"]
    with pytest.raises(KeyError):
        sealed.last_value(b"c")
    sealed.clear()
    assert len(sealed.columns().keys) == sealed.count == 0


def test_of_each_key_the_last_change_is_kept_in_the_order_of_rows() -> None:
    sealed = SealedLast()
    sealed.add(["a", "b", "a", "a", "a"], [1.5, 2.5, 3.5, 4.5, 5.5], [0, 1, 2, 3, 4])
    sealed.add([b"\xff"], [7], [5])
    assert sealed.columns().values.to_pylist() == [b"2.5", b"5.5", b"7"]
    sealed.add(
        ["a", "b"], [b"null", None], [6, 7], lambda value: value if value is None else value_bytes(value)
    )
    found = sealed.columns()
    assert found.keys.to_pylist() == [b"\xff", b"a", b"b"]
    assert found.values.to_pylist() == [b"7", b"null", None]
    assert found.rows.to_pylist() == [5, 6, 7]
    assert (sealed.count, sealed.last) == (8, {"a": b"null", "b": None, b"\xff": 7})
    sealed.clear()
    assert (len(sealed.columns().keys), sealed.count, sealed.last) == (0, 0, {})


def value_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else msgspec.json.encode(value)
