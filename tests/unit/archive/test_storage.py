"""The local folder creates a file once, whoever races and whatever dies."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.archive import layout, open_archive
from headwater.archive.archive import Archive
from headwater.archive.local import TEMPORARY, LocalStore
from headwater.archive.opening import open_store, probe
from headwater.archive.storage import ArchiveUnavailableError
from headwater.archive.writer import Archiver
from headwater.core.errors import StoreRefusedError
from headwater.log.interface import Log
from tests.unit.archive.rows import append_numbered, log_rows, rows_of


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    opened = open_store(f"file://{tmp_path}/store")
    assert isinstance(opened, LocalStore)
    return opened


def test_the_six_verbs(store: LocalStore) -> None:
    assert store.put_if_absent("a/b", b"12345")
    assert not store.put_if_absent("a/b", b"other")
    assert store.put_if_absent("a/c", b"")
    assert (store.get("a/b"), store.get_range("a/b", 1, 3), store.get_range("a/b", 3, 99)) == (
        b"12345",
        b"23",
        b"45",
    )
    assert (store.head("a/b"), store.head("a/c"), store.head("a/d")) == (5, 0, None)
    assert (store.list_after("a"), store.list_after("a", "b"), store.list_after("x")) == (
        ["b", "c"],
        ["c"],
        [],
    )
    store.delete("a/b")
    store.delete("a/b")
    assert store.list_after("a") == ["c"]
    with pytest.raises(FileNotFoundError):
        store.get("a/b")
    with pytest.raises(FileNotFoundError):
        store.get_range("a/b", 0, 1)


def test_of_many_threads_that_create_one_file_exactly_one_wins(tmp_path: Path) -> None:
    barrier, wins = threading.Barrier(8), []

    def race(number: int) -> None:
        store = open_store(f"file://{tmp_path}/store")
        barrier.wait(10)
        for name in range(10):
            if store.put_if_absent(f"f/{name}", b"%d" % number * 1_000):
                wins.append((name, number))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(name for name, _ in wins) == list(range(10))
    store = open_store(f"file://{tmp_path}/store")
    assert all(store.get(f"f/{name}") == b"%d" % number * 1_000 for name, number in wins)
    assert not [name for name in os.listdir(tmp_path / "store" / "f") if name.startswith(".")]


def test_what_a_dead_writer_left_is_collected_and_a_living_ones_is_not(
    store: LocalStore, tmp_path: Path
) -> None:
    """I14: orphans are invisible and collected."""
    store.put_if_absent("p/a", b"1")
    dead, living = (tmp_path / "store" / "p" / f"{TEMPORARY}{who}~b" for who in ("dead", "living"))
    dead.write_bytes(b"half")
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert store.list_after("p") == ["a"]
        assert store.collect("p") == 1
        assert (dead.exists(), living.exists()) == (False, True)
    assert store.collect("p") == 1
    assert store.collect("nowhere") == 0


class _Overwriting(LocalStore):
    """A storage that takes the condition and ignores it, as some servers do."""

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        self.delete(name)
        return super().put_if_absent(name, data)


def test_a_storage_that_overwrites_is_refused(tmp_path: Path, log: Log) -> None:
    bad = _Overwriting(fsspec.filesystem("file"), str(tmp_path))
    with pytest.raises(StoreRefusedError, match=r"doesn't create files only where none is"):
        Archiver(log, Archive(bad, log.log_id), ["orders"])
    assert os.listdir(tmp_path) == []


def test_a_good_storage_passes_and_keeps_nothing_of_the_probe(store: LocalStore, tmp_path: Path) -> None:
    probe(store)
    assert os.listdir(tmp_path / "store") == []


@pytest.mark.parametrize("url", ["nosuch://x", "s3://"])
def test_a_url_that_can_not_be_opened_is_refused_with_the_way_out(url: str) -> None:
    with pytest.raises(StoreRefusedError, match=r"use a folder, such as file://|write s3://BUCKET/PREFIX"):
        open_archive(url, "l")


def test_a_storage_without_a_known_conditional_create_is_refused_but_for_a_single_writer(log: Log) -> None:
    archive = open_archive(f"memory://single-{log.log_id}", log.log_id)
    append_numbered(log, 9)
    with pytest.raises(StoreRefusedError, match=r"no create-only-where-none-is .*--single-writer"):
        Archiver(log, archive, ["orders"])
    alone = Archiver(log, archive, ["orders"], roll_rows=4, single_writer=True)
    assert alone.until_idle() == 9
    assert rows_of(archive.read("orders", 0, 0)) == log_rows(log)
    assert list(archive.verify()) == []
    archive.close()


def test_a_folder_that_can_not_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArchiveUnavailableError, match=r"can't write .*file/x/y"):
        open_store(f"file://{tmp_path}/file/x").put_if_absent("y", b"")


def test_a_full_disk_leaves_nothing_behind(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I19: no half file becomes visible or stays; after space is freed the same call works."""
    real = os.write
    written: list[int] = []

    def full(descriptor: int, data: memoryview) -> int:
        written.append(descriptor)
        if len(written) % 2 == 0:
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    store.put_if_absent("p/a", b"1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(ArchiveUnavailableError, match=r"No space left on device.*free space"):
            store.put_if_absent("p/b", b"22")
    assert os.listdir(tmp_path / "store" / "p") == ["a"]
    assert store.put_if_absent("p/b", b"22")


@given(
    name=st.one_of(st.text(min_size=1), st.sampled_from([".", "..", "../x", "a/b", "~", "a~b", "\0", "%2E"]))
)
def test_no_name_leaves_its_folder_and_each_comes_back(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    component = layout.encode_name(name)
    assert "/" not in component
    assert "\0" not in component
    assert "~" not in component
    assert not component.startswith(".")
    assert layout.decode_name(component) == name
    assert layout.parse_topic(f"{component}~{layout.encode_name(name)}") == (name, name)


def test_names_of_segments_sort_as_their_bases() -> None:
    bases = [0, 9, 10, 99_999, 2**63 - 1]
    names = [layout.segment_name(base) for base in bases]
    assert names == sorted(names)
    assert [layout.parse_segment(name) for name in names] == bases
    assert [
        layout.parse_segment(name) for name in ("x.parquet", "1.parquet", names[0] + "x", "." + names[0])
    ] == [None] * 4
