"""F8: stock faust writes a table's rows and the offset they reach with two RocksDB writes, and live rows one
by one.

A kill between the two leaves rows whose offset nobody knows.
"""

from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import rocksdict
from faust.events import Event
from faust.streams import _current_event
from faust.types import TP

import headwater as hw
from headwater.table.store import Store, open_store
from tests.faust.stock_broker import Broker, Stored, assign, stock_app
from tests.unit.engine.runs import Place, killed_at

CHANGELOG = TP("stock-spend-changelog", 0)


class WriteLog:
    """Passes every call on to the real RocksDB and notes the writes."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.writes: list[str] = []

    def put(self, key: bytes, value: bytes) -> None:
        """Note a single put."""
        self.writes.append(f"put {key.decode()!r}")
        self.database.put(key, value)

    def write(self, batch: Any) -> None:
        """Note a batch."""
        self.writes.append(f"batch of {batch.len()}")
        self.database.write(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)


class Killed(BaseException):
    """The process ends here."""


def _event(app: Any, record: Stored) -> Event:
    message = app.consumer._to_message(TP(record.topic, record.partition), record)
    return Event(app, record.key, record.value, {}, message)


@pytest.fixture
def app(tmp_path: Path) -> Any:
    return stock_app(Broker(), tmp_path, store="rocksdb://")


def _changes(app: Any) -> list[Event]:
    rows = [(b'"a"', b"1"), (b'"b"', b"2"), (b'"c"', b"3")]
    return [_event(app, Stored(CHANGELOG.topic, 0, 5 + n, key, value)) for n, (key, value) in enumerate(rows)]


@pytest.mark.asyncio
async def test_stock_faust_writes_restored_rows_and_their_offset_apart(app: Any) -> None:
    """I7: one write for the rows, another for the offset; right is one."""
    spend = app.Table("spend", default=int, partitions=1)
    log = spend.data._dbs[0] = WriteLog(spend.data._open_for_partition(0))

    spend.apply_changelog_batch(_changes(app))

    assert log.writes == ["batch of 3", "put '__faust\\x00offset__'"]


@pytest.mark.asyncio
async def test_stock_faust_killed_between_the_two_writes_has_rows_without_their_offset(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: the store holds offsets 5 to 7 and says that it holds none."""
    spend = app.Table("spend", default=int, partitions=1)

    def die(tp: TP, offset: int) -> None:
        raise Killed

    with monkeypatch.context() as kill:
        kill.setattr(spend.data, "set_persisted_offset", die)
        with pytest.raises(Killed):
            spend.apply_changelog_batch(_changes(app))
    await spend.data.stop()

    assert spend.data._db_for_partition(0).get(b'"c"') == b"3"
    assert spend.data.persisted_offset(CHANGELOG) is None  # right: 7, or no rows
    await spend.data.stop()


@pytest.mark.asyncio
async def test_stock_faust_writes_live_rows_one_put_a_time(app: Any) -> None:
    """I7: three rows of one record are three writes, none with an offset."""
    spend = app.Table("spend", default=int, partitions=1)
    assign(app, "orders")
    log = spend.data._dbs[0] = WriteLog(spend.data._open_for_partition(0))
    event = _event(app, Stored("orders", 0, 0, b"k", b"v"))
    token = _current_event.set(ref(event))
    try:
        for key in ("a", "b", "c"):
            spend[key] = 1
    finally:
        _current_event.reset(token)

    assert log.writes == ["put '\"a\"'", "put '\"b\"'", "put '\"c\"'"]


def _adder(app: hw.App) -> None:
    spend = app.Table("spend", default=int)

    @app.agent(app.topic("orders", key_type=str, value_type=int))
    async def adder(stream: hw.Stream) -> None:
        async for amount in stream:
            for key in ("a", "b", "c"):
                spend[key] += amount


def test_headwater_writes_rows_and_their_offset_in_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: an epoch of three rows is one write of four entries, live; so is what a restore takes from the changelog."""
    writes: list[list[str]] = []

    real = rocksdict.Rdict

    class Noted:
        def __init__(self, *arguments: Any) -> None:
            self.database = real(*arguments)
            writes.append([])

        def __setitem__(self, key: bytes, value: bytes) -> None:
            writes[-1].append("put")
            self.database[key] = value

        def __delitem__(self, key: bytes) -> None:
            writes[-1].append("delete")
            del self.database[key]

        def put(self, *arguments: Any) -> None:
            writes[-1].append("put")
            self.database.put(*arguments)

        def write(self, batch: Any, *arguments: Any) -> None:
            writes[-1].append(f"batch of {batch.len()}")
            self.database.write(batch, *arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.database, name)

    place = Place(tmp_path)
    place.append("orders", [1], keys=b"k")
    place.run(_adder)  # so that the store is there: the next one writes as every one after the first
    monkeypatch.setattr("headwater.table.store.rocksdict.Rdict", Noted)
    place.append("orders", [1], keys=b"k")
    place.run(_adder)
    assert writes == [["batch of 1", "batch of 4"]]  # recovery notes that it is at the end; the epoch

    place.append("orders", [1], keys=b"k")
    with killed_at(monkeypatch, "epoch.between_log_and_store"):
        place.run(_adder)
    place.run(_adder)
    assert writes[1:] == [["batch of 1"], ["batch of 4"]]
    assert place.table("spend") == {b"a": 3, b"b": 3, b"c": 3}


def test_headwater_killed_in_its_write_has_rows_and_offset_or_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: there is no instant at which the store holds rows of an offset that it doesn't name."""
    place = Place(tmp_path)
    place.append("orders", [1], keys=b"k")
    real = Store.write

    def die_before(self: Store, changes: Any, offset: int) -> None:
        if changes:
            raise Killed
        real(self, changes, offset)

    def die_after(self: Store, changes: Any, offset: int) -> None:
        real(self, changes, offset)
        if changes:
            raise Killed

    found = []
    for die in (die_before, die_after):
        with monkeypatch.context() as kill:
            kill.setattr(Store, "write", die)
            with pytest.raises(hw.HeadwaterError, match="Killed"):
                place.run(_adder)
        store = open_store(str(tmp_path / "state" / "app" / "live" / "w0"), "spend", 0)
        found.append((dict(store.items()), store.changelog_offset))
        store.close()
        place.run(_adder)
        place.append("orders", [1], keys=b"k")
    assert found == [({}, 0), ({b"a": b"2", b"b": b"2", b"c": b"2"}, 2)]
    assert place.table("spend") == {b"a": 2, b"b": 2, b"c": 2}
