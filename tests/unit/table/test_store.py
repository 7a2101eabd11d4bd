"""Every store keeps one contract; the one on disk also keeps its lock, its atomicity and its word about damage."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headwater.core.errors import HeadwaterError, RecoveryError
from headwater.table.store import (
    MemoryStore,
    StateStore,
    Store,
    StoreClosedError,
    StoreHeldError,
    open_store,
)

FALSY = {b"0": b"0", b"text": b'""', b"empty": b"", b"null": b"null", b"false": b"false", b"": b"empty key"}


@pytest.fixture(params=["memory", "rocksdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    root = "memory://" if request.param == "memory" else str(tmp_path)
    opened = open_store(root, "totals", 3)
    yield opened
    opened.close()


def test_a_new_store_is_empty_at_offset_0(store: StateStore) -> None:
    assert store.changelog_offset == 0
    assert store.is_empty()
    assert len(store) == 0
    assert list(store.items()) == []
    assert store.get(b"a") is None
    assert store.name == "totals/3"


def test_a_write_sets_deletes_and_moves_the_offset(store: StateStore) -> None:
    store.write({b"a": b"1", b"b": b"2"}, 5)
    store.write({b"a": None, b"c": b"3", b"never": None}, 6)
    assert dict(store.items()) == {b"b": b"2", b"c": b"3"}
    assert store.get(b"a") is None
    assert store.changelog_offset == 6
    assert len(store) == 2
    assert not store.is_empty()


def test_falsy_values_are_rows_also_after_set_delete_set(store: StateStore) -> None:
    """faust's memory store loses 0 when a key is set, deleted and set to it again."""
    store.write(dict.fromkeys(FALSY, b"5"), 1)
    store.write(dict.fromkeys(FALSY), 2)
    assert store.is_empty()
    store.write(dict(FALSY), 3)
    assert dict(store.items()) == FALSY
    for key, value in FALSY.items():
        assert store.get(key) == value


def test_rows_come_in_the_order_of_key_bytes(store: StateStore) -> None:
    keys = [
        b"",
        b"\x00",
        b"\x00meta",
        b"\x01",
        b"a",
        b"a\x00",
        b"aa",
        b"b",
        b"\x7f",
        b"\xc3\xa9",
        b"\xff\xff",
    ]
    store.write(dict.fromkeys(reversed(keys), b"v"), 1)
    assert [key for key, _ in store.items()] == sorted(keys)


def test_a_scan_gives_what_begins_so_from_a_key_on(store: StateStore) -> None:
    rows = dict.fromkeys((b"", b"a", b"a\xff", b"a\xff\xff", b"ab", b"b", b"\xff", b"\xff\xff"), b"v")
    store.write(rows, 1)
    for prefix in (b"", b"a", b"a\xff", b"c", b"\xff"):
        for start in (b"", b"a", b"aa", b"b", b"\xff\xff"):
            expected = [key for key in sorted(rows) if key.startswith(prefix) and key >= start]
            assert [key for key, _ in store.scan(prefix, start)] == expected


def test_no_key_meets_the_offset_that_is_stored_beside_the_rows(store: StateStore) -> None:
    keys = [b"\x00meta", b"meta", b"\x01", b"\x00", b""]
    store.write(dict.fromkeys(keys, b"x"), 9)
    assert store.changelog_offset == 9
    assert len(store) == len(keys)
    store.write(dict.fromkeys(keys), 10)
    assert store.is_empty()
    assert store.changelog_offset == 10


def test_a_walk_shows_the_rows_as_they_were_when_it_began(store: StateStore) -> None:
    store.write({b"a": b"1", b"b": b"2"}, 1)
    walk = store.items()
    assert next(walk) == (b"a", b"1")
    store.write({b"b": b"9", b"c": b"3"}, 2)
    assert list(walk) == [(b"b", b"2")]


def test_ingesting_is_writing(store: StateStore) -> None:
    store.ingest([b"a", b"b", b"c"], [b"1", b"", b"3"], 4)
    assert dict(store.items()) == {b"a": b"1", b"b": b"", b"c": b"3"}
    store.write({b"d": b"4"}, 5)
    store.ingest_runs([([b"a", b"c"], [None, b"9"]), ([], []), ([b"d", b"e"], [None, b"5"])], 8)
    assert dict(store.items()) == {b"b": b"", b"c": b"9", b"e": b"5"}
    assert store.changelog_offset == 8


@pytest.mark.parametrize("keys", [[b"b", b"a"], [b"a", b"a"]])
def test_keys_to_ingest_must_rise_and_a_refused_ingest_changes_nothing(
    store: StateStore, keys: list[bytes]
) -> None:
    store.write({b"x": b"1"}, 1)
    with pytest.raises(ValueError, match="not in strictly rising order"):
        store.ingest(keys, [b"1", b"2"], 2)
    with pytest.raises(ValueError):
        store.ingest([b"a"], [b"1", b"2"], 2)
    assert dict(store.items()) == {b"x": b"1"}
    assert store.changelog_offset == 1


def test_clear_drops_rows_and_offset_and_the_store_goes_on(store: StateStore) -> None:
    store.ingest([b"a", b"\xff"], [b"1", b"2"], 7)
    store.clear()
    assert store.is_empty()
    assert len(store) == 0
    assert store.changelog_offset == 0
    store.ingest([b"a"], [b"3"], 2)
    assert list(store.items()) == [(b"a", b"3")]


def test_the_offset_never_goes_back(store: StateStore) -> None:
    store.write({b"a": b"1"}, 5)
    store.write({b"a": b"2"}, 5)
    with pytest.raises(HeadwaterError, match=r"totals/3 reaches changelog offset 5 and can't go back to 4"):
        store.write({b"a": b"3"}, 4)
    with pytest.raises(HeadwaterError, match="can't go back"):
        store.ingest([b"a"], [b"3"], 4)
    assert store.get(b"a") == b"2"


def test_a_closed_store_refuses_use_and_ends_walks_with_an_error(store: StateStore) -> None:
    store.write({b"a": b"1", b"b": b"2"}, 1)
    walk = store.items()
    next(walk)
    store.close()
    store.close()
    uses: list[Callable[[], object]] = [
        lambda: store.get(b"a"), store.items, lambda: store.write({}, 2), store.clear, store.is_empty,
        lambda: len(store), lambda: next(walk), lambda: store.ingest([b"z"], [b"1"], 3),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(StoreClosedError):
            use()


def test_a_walk_that_was_read_to_its_end_stays_ended_after_close(store: StateStore) -> None:
    store.write({b"a": b"1"}, 1)
    walk = store.items()
    assert list(walk) == [(b"a", b"1")]
    assert next(walk, None) is None


def test_rows_and_offset_are_there_after_reopening(tmp_path: Path) -> None:
    store = Store(tmp_path, "t", 0)
    store.write({b"a": b"1"}, 1)
    store.ingest([b"b"], [b"2"], 2)
    store.close()
    again = Store(tmp_path, "t", 0)
    assert dict(again.items()) == {b"a": b"1", b"b": b"2"}
    assert again.changelog_offset == 2
    again.close()


def test_close_gives_up_the_lock_while_a_walk_is_under_way(tmp_path: Path) -> None:
    store = Store(tmp_path, "t", 0)
    store.write({b"a": b"1", b"b": b"2"}, 1)
    walk = store.items()
    next(walk)
    store.close()
    again = Store(tmp_path, "t", 0)
    assert len(again) == 2
    again.close()


def test_a_walk_that_was_dropped_holds_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, "t", 0)
    store.write({b"a": b"1", b"b": b"2"}, 1)
    next(store.items())
    gc.collect()
    store.close()
    Store(tmp_path, "t", 0).close()


def test_a_second_store_on_a_folder_of_this_process_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, "t", 0)
    with pytest.raises(StoreHeldError, match="open already in this process"):
        Store(tmp_path, "t", 0)
    store.write({b"a": b"1"}, 1)
    store.close()


def test_a_folder_held_by_another_process_is_refused_with_what_to_do(tmp_path: Path) -> None:
    code = "import sys; from headwater.table.store import Store; s = Store(sys.argv[1], 't', 0); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            StoreHeldError, match=r"of table t/0 is held by another process; stop that worker"
        ):
            Store(tmp_path, "t", 0)
        holder.kill()
    Store(tmp_path, "t", 0).close()


def test_a_folder_of_another_table_or_partition_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, "t", 0)
    store.write({b"a": b"1"}, 1)
    store.close()
    for table, partition in (("u", 0), ("t", 1)):
        with pytest.raises(RecoveryError, match=r"found a store of '1 t/0'; delete the folder"):
            Store(tmp_path, table, partition)
    Store(tmp_path, "t", 0).close()


def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a file")
    with pytest.raises(HeadwaterError, match="can't make the state folder"):
        open_store(str(tmp_path), "t", 0)


def _rows_on_disk(path: Path) -> Path:
    """Write rows into one SST file below `path` and return it."""
    store = Store(path, "t", 0)
    keys = [b"%06d" % at for at in range(20_000)]
    store.ingest(keys, keys, 1)
    store.close()
    return max(path.glob("*.sst"), key=lambda file: file.stat().st_size)


def test_a_damaged_block_never_ends_a_walk_in_silence(tmp_path: Path) -> None:
    """rocksdict's iterator just stops at a damaged block: a dump would lack rows and nobody would know."""
    file = _rows_on_disk(tmp_path)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0xFF
    file.write_bytes(data)
    store = Store(tmp_path, "t", 0)
    with pytest.raises(
        RecoveryError, match=r"is damaged: Corruption.*delete the folder: the state is rebuilt"
    ):
        list(store.items())
    store.close()


@pytest.mark.parametrize("damage", ["sst", "current", "manifest"])
def test_a_damaged_folder_says_to_delete_it(tmp_path: Path, damage: str) -> None:
    file = _rows_on_disk(tmp_path)
    if damage == "sst":
        file.unlink()
    elif damage == "current":
        (tmp_path / "CURRENT").write_bytes(b"nonsense")
    else:
        for manifest in tmp_path.glob("MANIFEST-*"):
            manifest.write_bytes(b"nonsense" * 100)
    with pytest.raises(RecoveryError, match="delete the folder: the state is rebuilt from the changelog"):
        Store(tmp_path, "t", 0)


def test_a_file_left_by_a_killed_ingest_is_cleared_away(tmp_path: Path) -> None:
    Store(tmp_path, "t", 0).close()
    (tmp_path / "ingest.tmp").write_bytes(b"half a file")
    store = Store(tmp_path, "t", 0)
    assert not (tmp_path / "ingest.tmp").exists()
    assert store.is_empty()
    store.close()


def test_what_was_written_before_an_ingest_is_on_disk_with_it(tmp_path: Path) -> None:
    """I7 after a power cut: the log of unsynced batches may be lost, but never batches before an ingested offset."""
    store = Store(tmp_path, "t", 0)
    store.write({b"z": b"1"}, 1)
    assert store._db.property_int_value("rocksdb.num-entries-active-mem-table") > 0
    store.ingest([b"a"], [b"2"], 2)
    assert store._db.property_int_value("rocksdb.num-entries-active-mem-table") == 0
    store.close()
    for log in tmp_path.glob("*.log"):
        log.write_bytes(b"")
    again = Store(tmp_path, "t", 0)
    assert (dict(again.items()), again.changelog_offset) == ({b"a": b"2", b"z": b"1"}, 2)
    again.close()


def test_batches_lost_in_a_power_cut_are_lost_whole(tmp_path: Path) -> None:
    """I7: wherever the unsynced log is cut, rows and offset are of the same batch."""
    store = Store(tmp_path / "a", "t", 0)
    for offset in range(1, 6):
        store.write({b"k%d" % at: b"%d" % offset for at in range(20)}, offset)
    (log,) = (tmp_path / "a").glob("*.log")
    whole = log.read_bytes()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.is_file()}
    store.close()
    seen = set()
    for at, length in enumerate(range(0, len(whole), len(whole) // 12)):
        folder = tmp_path / f"cut{at}"
        folder.mkdir()
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        (folder / log.name).write_bytes(whole[:length])
        cut = Store(folder, "t", 0)
        reached = cut.changelog_offset
        expected = {b"k%d" % at: b"%d" % reached for at in range(20)} if reached else {}
        assert dict(cut.items()) == expected
        seen.add(reached)
        cut.close()
    assert len(seen) >= 5


def test_the_memory_store_needs_no_folder() -> None:
    assert isinstance(open_store("memory://any", "t", 0), MemoryStore)
