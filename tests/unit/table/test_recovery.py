"""Recovery in bulk gives what folding change by change gives, is ready only at the end, and stops at any error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.batch import Batch
from headwater.core.errors import HandoverGapError, RecoveryError
from headwater.table import recovery
from headwater.table.recovery import recover
from headwater.table.store import MemoryStore, StateStore, Store, open_store

from .changelogs import TOPIC, Change, batches_of, blobs_of, naive_fold

VALUES = st.none() | st.sampled_from([b"0", b'""', b"", b"null", b"false", b"[]", b"5"])
CHANGES = st.tuples(st.sampled_from([b"", b"a", b"b", b"\x00meta", b"\xff"]), VALUES, st.integers(-5, 50))
EPOCHS = st.lists(st.lists(CHANGES, min_size=1, max_size=8), max_size=10)


@given(
    epochs=EPOCHS,
    hole=st.integers(0, 2),
    chunk_bytes=st.sampled_from([1, 60, 1 << 20]),
    already=st.integers(0, 5),
)
@settings(max_examples=60)
def test_recovery_equals_the_fold_change_by_change(
    epochs: list[list[Change]], hole: int, chunk_bytes: int, already: int
) -> None:
    """I6, I8: also for falsy values set, deleted and set again, for holes, for any chunk, from any stored offset."""
    store = MemoryStore("t", 0)
    batches = list(batches_of(epochs, hole=hole))
    end = batches[-1].next if batches else 0
    first, rest = batches[:already], batches[already:]
    recover(store, first, end=first[-1].next if first else 0)
    assert recover(store, rest, end=end, chunk_bytes=chunk_bytes) == end
    assert dict(store.items()) == naive_fold(change for epoch in epochs for change in epoch)
    assert store.changelog_offset == end


@given(epochs=EPOCHS, chunk_bytes=st.sampled_from([1, 60, 1 << 20]))
@settings(max_examples=25)
def test_recovery_on_disk_equals_the_fold_too(
    tmp_path_factory: pytest.TempPathFactory, epochs: list[list[Change]], chunk_bytes: int
) -> None:
    """I6, I7, I8: the same into RocksDB, and after reopening."""
    folder = tmp_path_factory.mktemp("store")
    store = Store(folder, "t", 0)
    end = recover(store, batches_of(epochs), chunk_bytes=chunk_bytes)
    store.close()
    again = Store(folder, "t", 0)
    assert dict(again.items()) == naive_fold(change for epoch in epochs for change in epoch)
    assert again.changelog_offset == end == sum(len(blobs_of(epoch)) for epoch in epochs)
    again.close()


@pytest.fixture(params=["memory://", "rocksdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    opened = open_store(request.param if "memory" in request.param else str(tmp_path), "t", 0)
    yield opened
    opened.close()


def test_falsy_values_set_deleted_and_set_again_are_recovered(store: StateStore) -> None:
    """faust 0.15.3 gives {} here: its memory store takes 0 for deleted."""
    epochs: list[list[Change]] = [
        [(b"n", b"5", 1), (b"t", b'"x"', 1), (b"e", b"x", 1), (b"z", b"1", 1), (b"gone", b"1", 1)],
        [(key, None, 2) for key in (b"n", b"t", b"e", b"z", b"gone")],
        [(b"n", b"0", 3), (b"t", b'""', 3), (b"e", b"", 3), (b"z", b"null", 3)],
    ]
    recover(store, batches_of(epochs))
    assert dict(store.items()) == {b"n": b"0", b"t": b'""', b"e": b"", b"z": b"null"}


def test_deleted_keys_stay_deleted_when_a_store_catches_up(store: StateStore) -> None:
    """I8: a deletion reaches rows that the store already has."""
    store.write({b"a": b"1", b"b": b"2"}, 4)
    assert recover(store, batches_of([[(b"a", None, 1), (b"c", None, 1)]], start=4)) == 5
    assert dict(store.items()) == {b"b": b"2"}


@pytest.mark.parametrize("distinct", [50, 6000, 20_000])
def test_many_changes_are_folded_in_ranges_and_go_in_as_files(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, distinct: int
) -> None:
    monkeypatch.setattr(recovery, "_RANGE_ROWS", 500)
    monkeypatch.setattr(recovery, "WRITE_ROWS_MAX", 40)
    changes: list[Change] = [
        (b"%d" % (at * 7919 % distinct), None if at % 11 == 0 else b"%d" % at, at) for at in range(20_000)
    ]
    epochs = [changes[at : at + 1000] for at in range(0, 20_000, 1000)]
    recover(store, batches_of(epochs), chunk_bytes=100_000)
    assert list(store.items()) == sorted(naive_fold(changes).items())


def test_a_changelog_that_deletes_all_leaves_an_empty_store_at_its_end(store: StateStore) -> None:
    """I8: nothing but deletions reaches an empty store."""
    assert recover(store, batches_of([[(b"a", b"1", 1), (b"a", None, 2)], [(b"b", None, 3)]]), end=2) == 2
    assert store.is_empty()
    assert store.changelog_offset == 2


def test_holes_at_the_end_are_passed_by_position(store: StateStore) -> None:
    """A changelog that ends in transaction markers is finished by position, not by a last record (F13)."""
    assert recover(store, [*batches_of([[(b"a", b"1", 1)]]), Batch.empty(TOPIC, 0, 1, 7)], end=7) == 7
    assert store.changelog_offset == 7
    assert recover(store, [], end=7) == 7


def test_nothing_past_the_end_is_read(store: StateStore) -> None:
    epochs: list[list[Change]] = [[(b"a", b"1", 1)], [(b"a", b"2", 2)], [(b"a", b"3", 3)]]

    def batches() -> Iterator[Batch]:
        yield from batches_of(epochs)
        pytest.fail("read on past the end")

    assert recover(store, batches(), end=2) == 2
    assert store.get(b"a") == b"2"


def test_progress_rises_to_the_total(store: StateStore) -> None:
    told: list[tuple[int, int | None]] = []
    store.write({}, 10)
    epochs: list[list[Change]] = [[(b"a", b"1", 1)]] * 5
    recover(
        store, batches_of(epochs, start=10), end=15, progress=lambda done, total: told.append((done, total))
    )
    assert told == sorted(told)
    assert told[-1] == (5, 5)


def _bad(kind: str) -> list[Batch]:
    good = blobs_of([(b"b", b"2", 2)])[0]
    key, value = {"keyed": (b"k", good), "no value": (None, None), "damaged": (None, good[:100])}[kind]
    return [Batch(TOPIC, 0, 1, 3, [1, 2], [0, 0], [key, None], [value, good])]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("keyed", r"app\.live\.changelog\.t/0@1: found a record with a key, expected a blob"),
        ("no value", r"app\.live\.changelog\.t/0@1: found a record with no value"),
        ("damaged", r"app\.live\.changelog\.t/0@1: a changelog blob of 100 bytes can't be read"),
    ],
)
def test_a_bad_record_stops_recovery_and_nothing_after_it_is_written(
    store: StateStore, kind: str, message: str
) -> None:
    """F12: faust's recovery logs the error and goes on to "ready" without the rest."""
    first = list(batches_of([[(b"a", b"1", 1)]]))
    with pytest.raises(RecoveryError, match=message):
        recover(store, [*first, *_bad(kind)], end=3, chunk_bytes=1)
    assert store.changelog_offset == 1
    assert dict(store.items()) == {b"a": b"1"}


def test_missing_and_repeated_offsets_are_refused(store: StateStore) -> None:
    epochs: list[list[Change]] = [[(b"a", b"1", 1)]]
    for start in (1, 5):
        with pytest.raises(RecoveryError, match=rf"t/0@{start}: the changelog should go on at offset 0"):
            recover(store, batches_of(epochs, start=start))
    with pytest.raises(RecoveryError, match="@0: the changelog should go on at offset 1"):
        recover(store, [*batches_of(epochs), *batches_of(epochs)])
    assert store.changelog_offset == 0


def test_a_changelog_that_ends_before_its_end_is_never_ready(store: StateStore) -> None:
    """I8: ready means that the target is reached."""
    with pytest.raises(RecoveryError, match="ends at offset 1, before its end 2"):
        recover(store, batches_of([[(b"a", b"1", 1)]]), end=2)


def test_a_store_of_another_log_is_refused(store: StateStore) -> None:
    store.write({b"a": b"1"}, 9)
    with pytest.raises(
        RecoveryError, match="past the changelog's end 3: it belongs to another log; delete its folder"
    ):
        recover(store, [], end=3)


def test_an_error_of_the_source_is_told_with_the_table_and_position(store: StateStore) -> None:
    def batches() -> Iterator[Batch]:
        yield from batches_of([[(b"a", b"1", 1)]])
        raise HandoverGapError("offsets 1 to 4 are gone", base=1, end=5)

    with pytest.raises(
        RecoveryError, match=r"table t/0 can't be rebuilt past changelog offset 1: offsets 1 to 4"
    ):
        recover(store, batches(), end=9)


def test_memory_is_bounded_by_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    apply: Any = recovery._apply

    def watch(store: StateStore, chunk: recovery.Chunk, position: int) -> None:
        sizes.append(chunk.nbytes)
        apply(store, chunk, position)

    monkeypatch.setattr(recovery, "_apply", watch)
    epochs: list[list[Change]] = [[(b"%d" % (at % 7), b"x" * 1000, at)] for at in range(200)]
    recover(MemoryStore("t", 0), batches_of(epochs), chunk_bytes=10_000)
    assert len(sizes) > 10
    assert max(sizes) < 12_000
