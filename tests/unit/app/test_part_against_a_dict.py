"""A table part against a plain dictionary: reads, the list of changes, rolling back, flushing (I2, I7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.errors import HomePartitionError, KeyRefusedError, ValueRefusedError
from headwater.core.keys import encode_key, key_text
from headwater.core.partitioner import partition_of
from headwater.core.values import Codec, codec_for
from headwater.stream.frame import Frame, Rows
from headwater.table.behind import WriteBehind
from headwater.table.part import MISSING, TablePart, canonical, exact_types
from headwater.table.store import MemoryStore
from tests.unit.app.frames import changes_of, hand

KEYS = st.sampled_from(["", "a", "b", "ä", "900", 900, 7, b"\xff", b"a", ("x", 1), 1.5, True])
VALUES = st.sampled_from(
    [0, 1, -1.5, 1.0, "", "text", None, False, True, [], [1, [2]], {}, {"n": {"m": 1}}, 2**70]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, VALUES),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.just("read"), KEYS, st.none()),
        st.tuples(st.just("rollback"), st.integers(0, 6), st.none()),
        st.tuples(st.just("seal"), st.none(), st.none()),
        st.tuples(st.just("cut"), st.none(), st.none()),
        st.tuples(st.just("commit"), st.none(), st.none()),
        st.tuples(st.just("forget"), st.none(), st.none()),
    ),
    max_size=40,
)


def make_part(
    codec: Codec | None = None, *, partitions: int = 1, local: bool = False, last_only: bool = False
) -> tuple[TablePart, Frame]:
    part = TablePart(
        "t",
        0,
        0,
        partitions,
        WriteBehind(MemoryStore()),
        codec or codec_for(None, null=True),
        local=local,
        last_only=last_only,
    )
    frame = Frame("tester", Rows())
    hand(frame, [b"k"] * 1_000)
    return part, frame


def as_bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def same(found: Any, expected: Any) -> bool:
    return type(found) is type(expected) and found == expected


@settings(max_examples=300)
@given(steps=STEPS, value_type=st.sampled_from([None, float]), last_only=st.booleans())
def test_a_part_reads_as_a_dictionary_does_whatever_is_cached_sealed_rolled_back_or_committed(
    steps: list[Any], value_type: Any, last_only: bool
) -> None:
    """I2, I7: the store holds what was committed, what is staged and the cache show the rest."""
    part, frame = make_part(codec_for(value_type, null=True), last_only=last_only)
    codec = part.codec
    committed: dict[bytes, bytes] = {}
    collected: dict[bytes, bytes] = {}
    changes: list[tuple[int, bytes, bytes | None]] = []
    floor = 0

    def model() -> dict[bytes, bytes]:
        rows = dict(collected)
        for _, key, data in changes:
            if data is None:
                rows.pop(key, None)
            else:
                rows[key] = data
        return rows

    offset = 0
    for kind, key, value in steps:
        frame.row += 1
        if kind == "put":
            if value_type is float and type(value) not in (int, float):
                value = 0.5  # what a table of floats is given
            part.put(key, value, frame)
            changes.append((frame.row, encode_key(key) or b"", codec.encode(value)))
        elif kind == "delete":
            name = encode_key(key) or b""
            there = name in model()
            assert part.delete(key, frame) is there
            if there:
                changes.append((frame.row, name, None))
        elif kind == "read":
            data = model().get(encode_key(key) or b"")
            found = part.find(key, MISSING)
            assert found is MISSING if data is None else same(found, codec.decode(data))
            assert part.has(key) is (data is not None)
        elif kind == "rollback":
            row = frame.row - key
            part.rollback(row, 0)
            changes = [change for at, change in enumerate(changes) if at < floor or change[0] < row]
        elif kind == "seal":
            part.seal()
            floor = len(changes)
        elif kind == "commit":
            offset += 1
            committed = collected
            part.store.commit(offset)
            assert part.store.changelog_offset == offset
        elif kind == "cut":
            # An epoch is collected once the one before it is committed.
            committed = collected
            part.store.commit(offset)
            collected = model()
            sealed = changes_of(part)
            if last_only:
                assert {as_bytes(key): value for key, value, _ in sealed} == {
                    key: value for _, key, value in changes
                }
            else:
                assert [(row, as_bytes(key), value) for key, value, row in sealed] == changes
            changes, floor = [], 0
        elif not changes:
            part.forget()
        assert part.count == len(changes)
        rows = model()
        assert list(part.raw_items()) == sorted(rows.items())
    assert [(key, value) for key, value in part.items()] == [
        (k, codec.decode(v)) for k, v in sorted(model().items())
    ]
    assert dict(part.store.items()) == collected
    assert isinstance(part.store, WriteBehind)
    assert dict(part.store.committed()) == committed


@settings(max_examples=100)
@given(
    writes=st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc"), st.integers(0, 3)), max_size=20),
    keep=st.integers(0, 20),
)
def test_truncating_the_changes_leaves_a_part_as_if_they_had_not_been_made(
    writes: list[tuple[int, str, int]], keep: int
) -> None:
    """I2: the overlay is the fold of the changes that are left."""
    part, frame = make_part()
    other, other_frame = make_part()
    keep = min(keep, len(writes))
    for at, (_, key, value) in enumerate(writes):
        frame.row = at
        part.put(key, value, frame)
        if at < keep:
            other_frame.row = at
            other.put(key, value, other_frame)
    part.truncate(keep)
    assert [part.find(key) for key in "abc"] == [other.find(key) for key in "abc"]
    assert changes_of(part) == changes_of(other)


def test_a_rollback_stops_at_its_floor() -> None:
    part, frame = make_part()
    for row, value in ((0, 1), (1, 2), (1, 3)):
        frame.row = row
        part.put("a", value, frame)
    part.rollback(0, 1)
    assert part.find("a") == 1
    assert [value for _, value, _ in changes_of(part)] == [b"1"]


def test_what_is_read_does_not_hang_on_what_is_cached() -> None:
    """I1: 1 set in a table of floats reads as 1.0 at once, as it does after the cache is dropped."""
    part, frame = make_part(codec_for(float, null=True))
    part.put("a", 1, frame)
    at_once = part.find("a")
    part.cut()
    part.store.commit(1)
    part.forget()
    assert same(at_once, part.find("a"))
    assert exact_types(part.codec) == {float, type(None)}


def test_a_mutable_value_is_the_readers_own() -> None:
    """I1: changing what was read, without setting it, changes nothing."""
    part, frame = make_part()
    value = {"n": 1}
    part.put("a", value, frame)
    value["n"] = 2
    part.find("a")["n"] = 3
    assert part.find("a") == {"n": 1}


def test_equal_keys_of_other_types_are_one_row() -> None:
    part, frame = make_part()
    part.put(900, "number", frame)
    part.put("900", "text", frame)
    part.put(b"900", "bytes", frame)
    assert part.find(900) == part.find("900") == part.find(b"900") == "bytes"
    assert canonical(900) == "900"
    assert len(list(part.raw_items())) == 1


def test_a_key_that_is_away_from_home_is_refused_and_leaves_nothing() -> None:
    part, frame = make_part(partitions=4)
    away = next(f"k{n}" for n in range(100) if partition_of(f"k{n}".encode(), 4) != 0)
    home = next(f"k{n}" for n in range(100) if partition_of(f"k{n}".encode(), 4) == 0)
    part.put(home, 1, frame)
    with pytest.raises(HomePartitionError, match=rf"table 't'.*'{away}'.*group_by"):
        part.put(away, 1, frame)
    assert [key for key, _, _ in changes_of(part)] == [home]
    assert part.find(away) is None


def test_the_records_own_key_may_be_written_wherever_the_record_is() -> None:
    part, frame = make_part(partitions=4)
    away = next(f"k{n}" for n in range(100) if partition_of(f"k{n}".encode(), 4) != 0)
    hand(frame, [b"other", away.encode()])
    frame.row = 1
    part.put(away, 1, frame)
    assert part.find(away) == 1


def test_a_local_table_takes_every_key() -> None:
    part, frame = make_part(partitions=4, local=True)
    for number in range(20):
        part.put(number, number, frame)
    assert [part.find(number) for number in range(20)] == list(range(20))


@pytest.mark.parametrize("key", [None, "\ud800", float("nan")])
def test_a_key_without_bytes_is_refused_when_it_is_used_not_at_the_commit(key: Any) -> None:
    part, frame = make_part(local=True)
    with pytest.raises(KeyRefusedError):
        part.put(key, 1, frame)
    with pytest.raises(KeyRefusedError):
        part.find(key)
    assert part.count == 0


def test_a_value_json_has_no_word_for_is_refused_and_leaves_nothing() -> None:
    part, frame = make_part()
    for value in (float("nan"), float("inf"), {1, 2}.__iter__()):
        with pytest.raises(ValueRefusedError):
            part.put("a", value, frame)
    assert part.count == 0


def test_the_cache_is_dropped_when_it_is_full_and_the_rows_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """I12: what is cached is bounded."""
    import headwater.table.part as module

    monkeypatch.setattr(module, "CACHE_BYTES_MAX", 5_000)
    part, frame = make_part()
    for number in range(100):
        part.put(f"k{number}", "x" * 100, frame)
    part.cut()
    part.store.commit(1)
    assert (part.hot, part.raw) == ({}, {})
    assert part.find("k7") == "x" * 100


def test_keys_come_in_the_order_of_their_bytes() -> None:
    part, frame = make_part()
    for key in ("b", "a", "ä", 10, 9, b"\xff"):
        part.put(key, 0, frame)
    part.cut()
    part.store.commit(1)
    part.put("aa", 0, frame)
    found = [key_text(key) for key, _ in part.items()]
    assert found == ["10", "9", "a", "aa", "b", "ä", b"\xff"]
