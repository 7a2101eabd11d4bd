"""F12: stock faust's recovery puts a record of an unknown partition into the previous record's table, and
goes on after an error as if nothing had been lost.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from tests.faust.stock_broker import Broker, assign, deliver, settle, stock_app

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
