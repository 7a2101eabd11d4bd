"""The app of operators that crash tests run: counts, records that wait for the watermark, windows behind a group_by, changes."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from typing import Any

import headwater as hw
from headwater.stream.operator import CHANGES, LATE, OUT, Operator, OperatorSpec, Outlet
from headwater.stream.plan import GroupBy, StreamPlan
from tests.unit.engine.small_operators import Buffer, Count, Dedupe, Windows, WindowTable, spec

app = hw.App("derived", lease_s=0.4, retries=1, partitions=2, buffer_bytes=1 << 16)

SLOW_S = float(os.environ.get("SHOP_SLOW_S", "0"))


class SlowCount(Count):
    """Counts as slowly as the environment says, so that there is time to be killed."""

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        if SLOW_S:
            time.sleep(SLOW_S)
        super().process(inlet, key, value, timestamp, watermark)


def _item(value: Any) -> str:
    return str(value["item"])


for name in ("orders", "counted", "sorted", "closed"):
    app.topic(name, partitions=2)
copies = app.topic("copies", partitions=2)
losses = app.topic("losses", partitions=2)
WindowTable(app, "windows")

_by_item: tuple[StreamPlan, ...] = (StreamPlan((OUT + "firsts",), group_by=GroupBy(_item)),)


def _windows() -> Operator:
    return Windows("windows")


app.declared.add_operator(spec("count", SlowCount, "orders", states=("counts",), sinks=("counted",)))
app.declared.add_operator(spec("buffer", lambda: Buffer(50), "orders", states=("rows",), sinks=("sorted",)))
app.declared.add_operator(spec("firsts", Dedupe, "orders", states=("seen",)))
app.declared.add_operator(
    OperatorSpec("windows", _by_item, _windows, tables=("windows",), sinks=(Outlet("closed"),))
)


@app.agent(hw.Stream(app, StreamPlan((CHANGES + "windows",))), sink=[copies])
async def copy(stream: hw.Stream) -> AsyncIterator[Any]:
    """Send each change of a window on."""
    async for change in stream:
        yield change


@app.agent(hw.Stream(app, StreamPlan((LATE + "buffer",))), sink=[losses])
async def lose(stream: hw.Stream) -> AsyncIterator[Any]:
    """Send each late record on."""
    async for value in stream:
        yield value
