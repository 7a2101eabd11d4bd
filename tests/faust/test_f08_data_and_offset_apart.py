"""F8: stock faust writes a table's rows and the offset they reach with two RocksDB writes, and live rows one
by one.

A kill between the two leaves rows whose offset nobody knows.
"""

from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from faust.events import Event
from faust.streams import _current_event
from faust.types import TP

from tests.faust.stock_broker import Broker, Stored, assign, stock_app

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
