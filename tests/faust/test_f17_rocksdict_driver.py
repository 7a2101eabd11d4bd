"""F17: what stock faust's rocksdict driver says and does not do.

`read_only` opens for writing, the data folder option goes to an object that is thrown away, a TTL takes
rows away that the changelog keeps, databases are never closed, an error of any kind counts as RocksDB's,
and there is no backup.
"""

import gc
import time
from pathlib import Path
from typing import Any

import pytest
import rocksdict
from faust.stores import rocksdb
from faust.types import TP

import headwater as hw
from headwater.table.store import StoreHeldError, open_store
from tests.faust.stock_broker import Broker, stock_app
from tests.unit.engine.runs import Place

CHANGELOG = TP("stock-spend-changelog", 0)


@pytest.fixture
def app(tmp_path: Path) -> Any:
    return stock_app(Broker(), tmp_path, store="rocksdb://")


def test_stock_faust_writes_through_a_read_only_store(app: Any) -> None:
    """I7: a table opened read-only takes a row and keeps it."""
    writer = app.Table("spend", partitions=1)
    writer.data._db_for_partition(0).put(b'"k"', b"1")
    del writer.data._dbs[0]

    reader = app.Table("spend2", partitions=1, options={"read_only": True})
    assert reader.data.read_only is True
    store = reader.data
    store.url = writer.data.url  # the same files
    store._db_for_partition(0).put(b'"k"', b"2")  # right: refused

    assert store._db_for_partition(0).get(b'"k"') == b"2"


def test_stock_faust_sets_its_data_folder_on_options_that_it_throws_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: the options with the folder and the options the database is opened with are two objects."""
    built: list[Any] = []
    with_folder: list[Any] = []
    opened_with: list[Any] = []

    class NotedOptions:
        def __init__(self) -> None:
            self.options = real_as_options(settings)
            built.append(self)

        def set_db_paths(self, paths: list[Any]) -> None:
            with_folder.append(self)
            self.options.set_db_paths(paths)

    def open_database(path: str, *, options: NotedOptions, access_type: Any) -> rocksdict.Rdict:
        opened_with.append(options)
        return rocksdict.Rdict(path, options=options.options, access_type=access_type)

    real_as_options = rocksdb.RocksDBOptions.as_options
    settings = rocksdb.RocksDBOptions(use_rocksdict=True)
    monkeypatch.setattr(settings, "as_options", NotedOptions)
    monkeypatch.setattr(rocksdb, "DB", open_database)

    settings.open(tmp_path / "spend-0.db").close()

    assert with_folder == [built[0]]
    assert opened_with == [built[1]]  # right: the same one


def test_stock_faust_with_a_ttl_loses_rows_that_the_changelog_keeps(app: Any) -> None:
    """I6: a second later RocksDB compaction has taken the row; no tombstone was sent."""
    spend = app.Table("spend", partitions=1, options={"ttl": 1})
    database = spend.data._db_for_partition(0)
    database.put(b'"k"', b"1")
    database.flush()
    deadline = time.monotonic() + 10
    # RocksDB's TTL reads the system's clock in whole seconds inside C++, so no clock of ours can stand in.
    while database.get(b'"k"') is not None and time.monotonic() < deadline:
        time.sleep(0.25)
        database.compact_range(None, None)

    assert database.get(b'"k"') is None  # right: 1, as in the changelog
    assert app.producer.buffer.size == 0  # nothing was told to the changelog


def test_stock_faust_keeps_the_lock_of_a_stopped_store(app: Any) -> None:
    """I7: stop() closes nothing; whoever still holds the database blocks the next owner of the partition."""
    spend = app.Table("spend", partitions=1)
    held = spend.data._db_for_partition(0)

    spend.data.revoke_partitions(spend, {CHANGELOG})

    assert spend.data._dbs == {}
    with pytest.raises(Exception, match=r"(?i)lock"):  # right: closed, so that it opens
        spend.data._db_for_partition(0)
    held.close()


def test_stock_faust_takes_every_exception_for_one_of_rocksdb() -> None:
    """I7: the class whose instances are retried as "locked" is Exception itself."""
    assert rocksdb.ERRORS_ROCKS_IO_ERROR is Exception


@pytest.mark.asyncio
async def test_stock_faust_has_no_backup(app: Any) -> None:
    """I7: both methods are there and raise."""
    spend = app.Table("spend", partitions=1)
    with pytest.raises(NotImplementedError, match="Backups not supported in rocksdict yet"):
        await spend.data.backup_partition(0)
    with pytest.raises(NotImplementedError, match="Backup restoration not supported in rocksdict yet"):
        spend.data.restore_backup(0)


def _adder(app: hw.App) -> None:
    spend = app.Table("spend", default=int)

    @app.agent(app.topic("orders", key_type=str, value_type=int))
    async def adder(stream: hw.Stream) -> None:
        async for key, amount in stream.items():
            spend[key] += amount


def test_headwater_refuses_options_that_would_not_hold(tmp_path: Path) -> None:
    """I7: `read_only`, TTL and the like are refused by name at the declaration, not ignored."""
    app = hw.App("app")
    for options in ({"read_only": True}, {"ttl": 1}, {"path": "x"}):
        with pytest.raises(hw.MisuseError, match="options"):
            app.Table("spend", options=options)


def test_headwater_keeps_its_stores_in_the_state_folder_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: the folder that was asked for has the database."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    place = Place(tmp_path)
    place.append("orders", [1], keys=b"k")
    place.run(_adder)
    assert (tmp_path / "state" / "app" / "live" / "w0" / "spend" / "0" / "CURRENT").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_headwater_lets_go_of_the_store_of_a_stopped_worker(tmp_path: Path) -> None:
    """I7: when `run` is over another owner may open the folder at once, with no wait for the collector."""
    place = Place(tmp_path)
    place.append("orders", [1], keys=b"k")
    gc.disable()
    try:
        place.run(_adder)
        database = rocksdict.Rdict(
            str(tmp_path / "state" / "app" / "live" / "w0" / "spend" / "0"), rocksdict.Options(raw_mode=True)
        )
        database.close()
    finally:
        gc.enable()


def test_headwater_says_who_holds_a_store_and_does_not_try_again_for_ever(tmp_path: Path) -> None:
    """I7: a store that can't be had is an error that names its folder; nothing was committed."""
    place = Place(tmp_path)
    place.append("orders", [1], keys=b"k")
    place.run(_adder)
    folder = tmp_path / "state" / "app" / "live" / "w0"
    held = open_store(str(folder), "spend", 0)
    place.append("orders", [1], keys=b"k")
    try:
        with pytest.raises(StoreHeldError, match=str(folder / "spend" / "0")):
            place.run(_adder)
    finally:
        held.close()
    assert place.table("spend") == {b"k": 1}
    place.run(_adder)
    assert place.table("spend") == {b"k": 2}
