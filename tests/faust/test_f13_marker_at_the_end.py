"""F13: stock faust recovers up to "high watermark - 1"; where that offset is a transaction marker, it never
comes.

At least once it waits for ever. Exactly once it gives up after two empty waits of five seconds, at every
start, and for ever where the consumer has no position yet (the comparison raises, the error is swallowed).
"""

import asyncio
import shutil
from collections.abc import Awaitable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from faust.tables import recovery as recovery_module
from faust.types import TP

import headwater as hw
from headwater.core.batch import Batch
from headwater.engine.history import read_topic
from headwater.table.store import open_store
from tests.faust.stock_broker import Broker, assign, deliver, settle, stock_app
from tests.unit.engine.runs import MARKER, Place, without_markers

SPEND = TP("stock-spend-changelog", 0)
ROWS = 5


class FastWaits(ModuleType):
    """asyncio as the recovery module sees it: `wait_for` notes its time-out and lets it pass at once."""

    def __init__(self) -> None:
        super().__init__("asyncio")
        self.waited_s: list[float] = []

    async def wait_for(self, ready: Awaitable[Any], timeout: float) -> Any:
        """Wait for what is ready now; where nothing is, the whole time-out has passed."""
        waiting = asyncio.ensure_future(ready)
        await settle(3)
        if waiting.done():
            return waiting.result()
        waiting.cancel()
        self.waited_s.append(timeout)
        raise TimeoutError

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


async def _recover(app: Any, waits: FastWaits, *, empty_waits: int) -> tuple[list[float], bool]:
    """Recover five rows before one marker; return what was waited with nothing to come, and whether it ended."""
    broker: Broker = app.transport.broker
    app.Table("spend", partitions=1)
    assign(app, SPEND.topic)
    await app.tables._update_channels()
    app.consumer.resume_partitions({SPEND})
    await app.topics._update_indices()
    await app.topics.on_partitions_assigned(app.consumer.assignment())
    recovery = app.tables.recovery
    recovery.add_active(app.tables["spend"], SPEND)
    records = [broker.append(SPEND, f'"k{n}"'.encode(), b"1") for n in range(ROWS)]
    broker.append_marker(SPEND)
    await recovery._build_highwaters(app.consumer, {SPEND}, recovery.active_highwaters, "active")
    await recovery._build_offsets(app.consumer, {SPEND}, recovery.active_offsets, "active")
    recovery._set_recovery_started()
    for record in records:
        await deliver(app, record)

    loop = asyncio.create_task(recovery._slurp_changelogs.fun(recovery))
    for _ in range(100 * empty_waits):
        if not recovery.in_recovery or len(waits.waited_s) >= empty_waits:
            break
        await asyncio.sleep(0)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    assert recovery.active_offsets[SPEND] >= ROWS - 1  # every row there is has been read
    await app.tables["spend"].stop()
    return waits.waited_s, not recovery.in_recovery


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> FastWaits:
    fast = FastWaits()
    monkeypatch.setattr(recovery_module, "asyncio", fast)
    return fast


@pytest.mark.asyncio
async def test_stock_faust_never_ends_recovery_of_a_changelog_that_ends_in_a_marker(
    tmp_path: Path, waits: FastWaits
) -> None:
    """I8: the target is offset 5, the marker's; an hour after the last row recovery still waits for it."""
    app = stock_app(Broker(), tmp_path, store="memory://")

    waited_s, ended = await _recover(app, waits, empty_waits=720)

    assert not ended
    assert sum(waited_s) >= 3_600  # right: 0, the position has reached the end
    assert app.tables.recovery.active_remaining() == {SPEND: 1}


@pytest.mark.asyncio
async def test_stock_faust_exactly_once_waits_ten_seconds_for_the_marker(
    tmp_path: Path, waits: FastWaits
) -> None:
    """I8, I23: with everything read and the position at the end, it waits twice five seconds."""
    app = stock_app(Broker(), tmp_path, store="memory://", processing_guarantee="exactly_once")
    app.consumer.positions[SPEND] = ROWS + 1

    waited_s, ended = await _recover(app, waits, empty_waits=720)

    assert ended
    assert waited_s == [5.0, 5.0]  # right: nothing


@pytest.mark.asyncio
async def test_stock_faust_exactly_once_never_ends_recovery_without_a_position(
    tmp_path: Path, waits: FastWaits
) -> None:
    """I8: aiokafka's position is None; `None >= 5` raises, is logged as a warning, and recovery goes on for ever."""
    app = stock_app(Broker(), tmp_path, store="memory://", processing_guarantee="exactly_once")
    app.consumer.positions[SPEND] = None

    waited_s, ended = await _recover(app, waits, empty_waits=720)

    assert not ended
    assert sum(waited_s) >= 3_600


def test_headwater_ends_recovery_where_the_changelog_ends_in_a_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I8, I23: recovery is done when its position is at the end: it asks once for what is there, and waits for nothing."""
    fetched: list[tuple[int, int, int]] = []

    def noted(*args: Any) -> Iterator[Batch]:
        for batch in map(without_markers, read_topic(*args)):
            fetched.append((batch.base, batch.next, len(batch)))
            yield batch

    monkeypatch.setattr("headwater.engine.assemble.read_topic", noted)
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        spend = app.Table("spend", default=int)

        @app.agent(app.topic("orders", key_type=str, value_type=int))
        async def adder(stream: hw.Stream) -> None:
            async for key, amount in stream.items():
                spend[key] += amount

    for number in range(ROWS):
        place.append("orders", [1], keys=f"k{number}".encode())
        place.run(declare)
    place.append("app.live.changelog.spend", [None], keys=MARKER)
    shutil.rmtree(tmp_path / "state")
    fetched.clear()

    place.append("orders", [1], keys=b"k0")
    place.run(declare)
    assert fetched == [(0, ROWS + 1, ROWS)]

    # A changelog of nothing but a marker, as after an aborted first epoch.
    store = open_store(str(tmp_path / "state" / "app" / "live" / "w0"), "spend", 0)
    reached = store.changelog_offset
    assert dict(store.items()) == {b"k0": b"2"} | {f"k{n}".encode(): b"1" for n in range(1, ROWS)}
    store.close()
    place.append("app.live.changelog.spend", [None], keys=MARKER)
    fetched.clear()
    place.run(declare)
    assert fetched == [(reached, reached + 1, 0)]
