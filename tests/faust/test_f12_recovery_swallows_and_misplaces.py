"""F12: stock faust's recovery puts a record of an unknown partition into the previous record's table, and
goes on after an error as if nothing had been lost.
"""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

import headwater as hw
from headwater.core.errors import RecoveryError
from headwater.log.memory import _STORES
from headwater.table.store import open_store
from tests.faust.stock_broker import Broker, assign, deliver, settle, stock_app
from tests.unit.engine.runs import Place

SPEND, VISITS = TP("stock-spend-changelog", 0), TP("stock-visits-changelog", 0)


async def _recovering(app: Any, target: int) -> Any:
    """Put the app where a rebalance leaves it: both changelogs subscribed, only `spend` to be recovered."""
    assign(app, SPEND.topic, VISITS.topic)
    await app.tables._update_channels()
    app.consumer.resume_partitions({SPEND, VISITS})
    await app.topics._update_indices()
    await app.topics.on_partitions_assigned(app.consumer.assignment())
    recovery = app.tables.recovery
    recovery.add_active(app.tables["spend"], SPEND)
    recovery.active_offsets[SPEND] = -1
    recovery.active_highwaters[SPEND] = target
    recovery._set_recovery_started()
    return recovery


async def _slurp(recovery: Any) -> None:
    """Run faust's recovery loop over what is queued."""
    loop = asyncio.create_task(recovery._slurp_changelogs.fun(recovery))
    await settle(200)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    for table in recovery.tables.values():
        await table.stop()


@pytest.mark.asyncio
async def test_stock_faust_puts_a_record_of_an_unknown_partition_into_the_previous_table(
    tmp_path: Path,
) -> None:
    """I6, I8: recovery has not been told of `visits`, and the row of `visits` ends up in `spend`."""
    broker = Broker()
    app = stock_app(broker, tmp_path, store="memory://")
    spend = app.Table("spend", partitions=1)
    visits = app.Table("visits", partitions=1)
    recovery = await _recovering(app, target=1)
    await deliver(app, broker.append(SPEND, b'"ann"', b"10"))
    await deliver(app, broker.append(VISITS, b'"eve"', b"999"))
    await deliver(app, broker.append(SPEND, b'"bob"', b"20"))

    await _slurp(recovery)

    assert dict(spend.data) == {"ann": 10, "eve": 999, "bob": 20}  # right: without eve
    assert dict(visits.data) == {}
    assert not recovery.in_recovery


@pytest.mark.asyncio
async def test_stock_faust_ends_recovery_without_the_row_that_raised(tmp_path: Path) -> None:
    """I8: the second of three rows raises; recovery warns, reaches its target and reports itself complete."""
    broker = Broker()
    app = stock_app(broker, tmp_path, store="memory://")
    spend = app.Table("spend", partitions=1)
    recovery = await _recovering(app, target=2)
    await deliver(app, broker.append(SPEND, b'"ann"', b"10"))
    await deliver(app, broker.append(SPEND, b'"bob"', b"\xff{"))
    await deliver(app, broker.append(SPEND, b'"cid"', b"30"))

    await _slurp(recovery)

    assert not recovery.in_recovery  # right: stopped, naming offset 1
    assert recovery.active_remaining_total() == 0
    assert dict(spend.data) == {"ann": 10, "cid": 30}  # wrong: one row short, and called complete


def _two_tables(app: hw.App, seen: list[str]) -> None:
    spend, visits = app.Table("spend", default=int), app.Table("visits", default=int)

    @app.agent(app.topic("orders", key_type=str, value_type=int))
    async def keeper(stream: hw.Stream) -> None:
        async for key, amount in stream.items():
            seen.append(key)
            (visits if key == "eve" else spend)[key] += amount


def test_headwater_restores_each_table_from_its_own_changelog(tmp_path: Path) -> None:
    """I6, I8: the row of `visits` lies between those of `spend` in time, and is restored into `visits`."""
    place = Place(tmp_path)
    for key, amount in ((b"ann", 10), (b"eve", 999), (b"bob", 20)):
        place.append("orders", [amount], keys=key)
        place.run(lambda app: _two_tables(app, []))
    shutil.rmtree(tmp_path / "state")

    place.run(lambda app: _two_tables(app, []))
    root = str(tmp_path / "state" / "app" / "live" / "w0")
    restored = {}
    for name in ("spend", "visits"):
        store = open_store(root, name, 0)
        restored[name] = dict(store.items())
        store.close()
    assert restored == {"spend": {b"ann": b"10", b"bob": b"20"}, "visits": {b"eve": b"999"}}


def test_headwater_stops_at_a_changelog_record_that_cannot_be_read(tmp_path: Path) -> None:
    """I8: the second of three changelog records is broken: no table is ready, no record is handed out."""
    place = Place(tmp_path)
    for key, amount in ((b"ann", 10), (b"bob", 20), (b"cid", 30)):
        place.append("orders", [amount], keys=key)
        place.run(lambda app: _two_tables(app, []))
    shutil.rmtree(tmp_path / "state")
    changelog = _STORES[place.settings.log.removeprefix("memory://")].topics["app.live.changelog.spend"]
    changelog[1][0].values[1] = b"\xff{"
    place.append("orders", [1], keys=b"dan")

    seen: list[str] = []
    with pytest.raises(RecoveryError, match=r"changelog.spend/0@1|offset 1") as stopped:
        place.run(lambda app: _two_tables(app, seen))
    assert "spend" in str(stopped.value)
    assert seen == []
    assert place.states()[0].read == {"orders/0": 3}
