"""I7: what waits to be written is read as if it were, and the store is the fold of its changelog at its own offset all the while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headwater.core.clock import ManualClock
from headwater.core.errors import HeadwaterError
from headwater.table import behind
from headwater.table.behind import WriteBehind
from headwater.table.store import MemoryStore, Store, StoreClosedError

KEYS = st.sampled_from([b"", b"a", b"ab", b"b", b"\x00", b"\xff"])
CHANGES = st.dictionaries(KEYS, st.none() | st.sampled_from([b"", b"0", b"null"]), max_size=4)


class BehindMachine(RuleBasedStateMachine):
    """A store that is written behind, against a dict; and the store below, against what the dict was at its offset."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.below = MemoryStore("t", 0)
        self.store = WriteBehind(self.below, self.clock)
        self.rows: dict[bytes, bytes] = {}
        self.committed: dict[bytes, bytes] = {}
        self.is_staged = False
        self.offset = 0
        self.at: dict[int, dict[bytes, bytes]] = {0: {}}

    @precondition(lambda self: not self.is_staged)
    @rule(changes=CHANGES)
    def stage(self, changes: dict[bytes, bytes | None]) -> None:
        self.store.stage(changes)
        self.is_staged = True
        for key, value in changes.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    @rule(step=st.integers(1, 3), seconds=st.sampled_from([0.1, 0.1, 0.5, 1.0]))
    def commit(self, step: int, seconds: float) -> None:
        self.clock.advance(seconds)
        self.offset += step
        self.store.commit(self.offset)
        self.is_staged, self.committed = False, dict(self.rows)
        self.at[self.offset] = self.committed

    @rule()
    def flush(self) -> None:
        self.store.flush()
        assert self.below.changelog_offset == self.offset

    @rule(prefix=KEYS, start=KEYS)
    def scan(self, prefix: bytes, start: bytes) -> None:
        wanted = sorted(row for row in self.rows.items() if row[0].startswith(prefix) and row[0] >= start)
        assert list(self.store.scan(prefix, start)) == wanted

    @invariant()
    def reads_are_those_of_the_dict(self) -> None:
        assert self.store.changelog_offset == self.offset
        assert list(self.store.items()) == sorted(self.rows.items())
        assert list(self.store.committed()) == sorted(self.committed.items())
        for key in (b"", b"a", b"ab", b"b", b"\x00", b"\xff"):
            assert self.store.get(key) == self.rows.get(key)
            assert self.store.get_committed(key) == self.committed.get(key)

    @invariant()
    def the_store_below_is_whole_at_its_offset(self) -> None:
        assert dict(self.below.items()) == self.at[self.below.changelog_offset]


BehindMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
test_a_store_written_behind_equals_a_dict = BehindMachine.TestCase


@pytest.fixture
def below() -> Iterator[MemoryStore]:
    store = MemoryStore("t", 0)
    yield store
    store.close()


def test_an_epoch_s_changes_wait_until_they_are_old(below: MemoryStore) -> None:
    clock = ManualClock()
    store = WriteBehind(below, clock)
    store.stage({b"a": b"1"})
    store.commit(1)
    clock.advance(behind.DELAY_S / 2)
    store.stage({b"a": b"2"})
    store.commit(2)
    assert (below.changelog_offset, below.get(b"a")) == (0, None)
    clock.advance(behind.DELAY_S / 2)
    store.stage({b"a": b"3"})
    store.commit(3)
    assert (below.changelog_offset, below.get(b"a")) == (3, b"3")


@pytest.mark.parametrize(
    "changes",
    [{b"%d" % at: b"" for at in range(behind.CHANGES_MAX)}, {b"a": b"x" * behind.BYTES_MAX}],
    ids=["many", "large"],
)
def test_much_does_not_wait(below: MemoryStore, changes: dict[bytes, bytes | None]) -> None:
    store = WriteBehind(below, ManualClock())
    store.stage(changes)
    store.commit(1)
    assert below.changelog_offset == 1
    assert len(below) == len(changes)


def test_an_offset_alone_moves_on(below: MemoryStore) -> None:
    store = WriteBehind(below, ManualClock())
    store.stage({})
    store.commit(7)
    assert store.changelog_offset == 7
    store.flush()
    assert below.changelog_offset == 7


def test_what_waits_is_refused_to_go_back(below: MemoryStore) -> None:
    store = WriteBehind(below, ManualClock())
    store.stage({b"a": b"1"})
    store.commit(5)
    store.stage({b"a": b"2"})
    with pytest.raises(HeadwaterError, match="reaches changelog offset 5 and can't go back to 4"):
        store.commit(4)
    assert store.get_committed(b"a") == b"1"


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    store = WriteBehind(Store(tmp_path, "t", 0), ManualClock())
    store.stage({b"a": b"1", b"b": b"2"})
    store.commit(1)
    store.stage({b"b": None})
    store.commit(2)
    store.close()
    again = Store(tmp_path, "t", 0)
    assert (again.changelog_offset, list(again.items())) == (2, [(b"a", b"1")])
    again.close()


def test_a_store_that_can_not_be_written_is_closed_all_the_same(
    below: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise HeadwaterError("No space left on device")

    store = WriteBehind(below, ManualClock())
    store.stage({b"a": b"1"})
    store.commit(1)
    monkeypatch.setattr(below, "write", full)
    store.close()
    assert "No space left on device; what was to be written is read from the changelog" in caplog.text
    with pytest.raises(StoreClosedError):
        below.get(b"a")


def test_what_is_staged_is_gone_at_the_end(tmp_path: Path) -> None:
    store = WriteBehind(Store(tmp_path, "t", 0), ManualClock())
    store.stage({b"a": b"1"})
    store.commit(1)
    store.stage({b"a": b"2", b"b": b"2"})
    assert (store.get(b"a"), store.get_committed(b"a")) == (b"2", b"1")
    store.close()
    again = Store(tmp_path, "t", 0)
    assert (again.changelog_offset, list(again.items())) == (1, [(b"a", b"1")])
    again.close()


def test_a_walk_sees_the_rows_of_its_beginning(tmp_path: Path) -> None:
    store = WriteBehind(Store(tmp_path, "t", 0), ManualClock())
    store.stage({b"a": b"1"})
    store.commit(1)
    store.flush()
    store.stage({b"b": b"2"})
    store.commit(2)
    rows = store.items()
    store.stage({b"a": None, b"c": b"3"})
    store.commit(3)
    store.flush()
    assert list(rows) == [(b"a", b"1"), (b"b", b"2")]
    store.close()
