"""States of operators against a dictionary: reads, scans, undo, epochs, and what comes back from the store."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headwater.core.errors import HeadwaterError
from headwater.table import state as state_module
from headwater.table.behind import WriteBehind
from headwater.table.sorted_keys import SortedKeys
from headwater.table.state import StatePart, Undo, decode, encode
from headwater.table.store import MemoryStore

keys = st.binary(max_size=3)
plain = st.recursive(
    st.integers(-(10**30), 10**30) | st.text(max_size=3) | st.booleans() | st.floats(allow_nan=False) | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(plain)
def test_plain_values_come_back_with_integers_of_any_size(value: Any) -> None:
    assert decode(encode(value)) == value


def test_what_is_no_plain_data_is_named_with_its_key() -> None:
    part = StatePart("op-rows", WriteBehind(MemoryStore()))
    part.put(b"k", object())
    with pytest.raises(HeadwaterError, match=r"op-rows.*b'k'"):
        part.cut()


class Place:
    row = 0


class AgainstADict(RuleBasedStateMachine):
    """What a state gives is what a dictionary gives: whatever is undone, flushed, forgotten or begun anew."""

    def __init__(self) -> None:
        super().__init__()
        self.committed: dict[bytes, Any] = {}
        self.collected: dict[bytes, Any] = {}
        self.now: dict[bytes, Any] = {}
        self.marked: dict[bytes, Any] = {}
        self.offset = 0
        self.place = Place()
        self.undo: Undo = []

    @initialize(small=st.booleans())
    def begin(self, small: bool) -> None:
        self.entries_max = state_module.CACHE_ENTRIES_MAX
        state_module.CACHE_ENTRIES_MAX = 4 if small else 100
        self.below = MemoryStore()
        self.store = WriteBehind(self.below)
        self.part = self.opened()

    def opened(self) -> StatePart:
        part = StatePart("op-rows", self.store)
        self.undo = []
        part.attach(self.place, self.undo)
        return part

    @rule(key=keys, value=plain)
    def put(self, key: bytes, value: Any) -> None:
        self.part.put(key, value)
        self.now[key] = value

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        self.part.delete(key)
        self.now.pop(key, None)

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        assert self.part.get(key) == self.now.get(key)

    @rule(prefix=st.binary(max_size=2), start=keys)
    def scan(self, prefix: bytes, start: bytes) -> None:
        expected = [(k, v) for k, v in sorted(self.now.items()) if k.startswith(prefix) and k >= start]
        assert list(self.part.scan(prefix, start)) == expected

    @rule()
    def mark(self) -> None:
        self.undo.clear()
        self.marked = dict(self.now)
        self.place.row += 1

    @rule()
    def undo_all(self) -> None:
        for state, key, value, row in reversed(self.undo):
            state.restore(key, value, row)
        self.undo.clear()
        self.now = dict(self.marked)

    @rule()
    def commit(self) -> None:
        self.offset += 1
        self.store.commit(self.offset)
        self.committed = self.collected
        assert dict(self.store.committed()) == {k: encode(v) for k, v in self.committed.items()}

    @rule()
    def cut(self) -> None:
        # An epoch is collected once the one before it is committed.
        self.commit()
        names, values, rows = self.part.cut()
        changed = {k: self.now.get(k) for k in self.now.keys() | self.committed.keys()}
        differs = {
            k
            for k, v in changed.items()
            if v != self.committed.get(k) or type(v) is not type(self.committed.get(k))
        }
        assert differs <= set(names), "what differs is written"
        assert [None if v is None else decode(v) for v in values] == [self.now.get(k) for k in names]
        assert all(row <= self.place.row for row in rows)
        assert dict(self.store.items()) == {k: encode(v) for k, v in self.now.items()}
        self.collected, self.marked = dict(self.now), dict(self.now)

    @rule()
    def crash(self) -> None:
        # What is staged is gone with the process; what was committed comes back from the changelog, if not from the store.
        self.store.flush()
        self.store = WriteBehind(self.below)
        self.part = self.opened()
        self.now, self.marked, self.collected = dict(self.committed), dict(self.committed), self.committed

    @invariant()
    def all_rows(self) -> None:
        if hasattr(self, "part"):
            assert dict(self.part.scan()) == self.now
            back = list(self.part.scan_back(b"", b"\xff"))
            assert back == sorted(((k, v) for k, v in self.now.items() if k < b"\xff"), reverse=True)

    def teardown(self) -> None:
        state_module.CACHE_ENTRIES_MAX = self.entries_max


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(
    st.lists(st.tuples(st.booleans(), st.binary(max_size=2)), max_size=200),
    st.binary(max_size=2),
    st.binary(max_size=2),
)
@settings(deadline=None)
def test_sorted_keys_are_a_sorted_set(steps: list[tuple[bool, bytes]], prefix: bytes, start: bytes) -> None:
    from headwater.table import sorted_keys

    chunk, sorted_keys.CHUNK = sorted_keys.CHUNK, 3
    try:
        found, expected = SortedKeys(key for _, key in steps[:20]), {key for _, key in steps[:20]}
        for is_added, key in steps:
            (found.add if is_added else found.discard)(key)
            (expected.add if is_added else expected.discard)(key)
        assert list(found.with_prefix(b"")) == sorted(expected)
        ours = sorted(k for k in expected if k.startswith(prefix))
        assert list(found.with_prefix(prefix, start)) == [k for k in ours if k >= start]
        assert list(found.back_from(prefix, start)) == [k for k in ours if k < start][::-1]
    finally:
        sorted_keys.CHUNK = chunk


def test_sorted_keys_may_change_while_they_are_gone_through() -> None:
    from headwater.table.sorted_keys import CHUNK

    numbers = range(0, 8 * CHUNK, 2)
    keys = SortedKeys(n.to_bytes(4, "big") for n in numbers)
    seen = []
    for key in keys.with_prefix(b""):
        number = int.from_bytes(key, "big")
        seen.append(number)
        keys.discard(key)
        if number % 4 == 0:
            keys.discard((number + CHUNK // 2).to_bytes(4, "big"))
    gone = {n + CHUNK // 2 for n in numbers if n % 4 == 0}
    # What was copied already may still come.
    assert set(seen) >= set(numbers) - gone
    assert seen == sorted(set(seen))
    assert list(keys.with_prefix(b"")) == []


def test_a_row_that_comes_and_goes_within_an_epoch_is_never_written() -> None:
    part = StatePart("op-rows", WriteBehind(MemoryStore()))
    part.put(b"a", 1)
    part.put(b"b", 2)
    part.delete(b"a")
    assert part.cut()[0] == [b"b"]
    part.store.commit(1)
    part.delete(b"b")
    assert part.cut()[:2] == ([b"b"], [None])


def test_how_much_a_change_is_does_not_grow_with_what_came_and_went() -> None:
    part = StatePart("op-rows", WriteBehind(MemoryStore()))
    for epoch in range(50):
        for row in range(20):
            part.put(b"%d" % row, "x" * 100)
        part.cut()
        part.store.commit(epoch + 1)
        for row in range(20):
            part.delete(b"%d" % row)
        part.cut()
        part.store.commit(epoch + 1)
    part.put(b"0", 1)
    [typical] = part.sample(0, 1)
    assert 100 <= len(typical) <= 120
