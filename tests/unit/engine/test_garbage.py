"""I25: an epoch that is committed leaves nothing behind that only the garbage collector would find."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import Any

import headwater as hw
from headwater.stream.frame import Rows
from tests.unit.engine.runs import Place, at_work, until

EPOCHS = 20


def declare(app: hw.App) -> None:
    """Change a table, send to a topic of others and through a group_by, and take records together."""
    sums = app.Table("sums", default=int)
    out = app.topic("out")
    orders = app.topic("orders", key_type=str, value_type=int)

    @app.agent(orders, sink=[out])
    async def add(stream: hw.Stream) -> Any:
        async for key, number in stream.items():
            sums[key] += number
            yield sums[key]

    @app.agent(orders)
    async def parity(stream: hw.Stream) -> None:
        async for number in stream.group_by(lambda number: str(number % 2), name="parity"):
            await out.send(value=number)


async def test_the_rows_of_a_committed_epoch_are_gone_without_the_collector(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.topic("orders")
    app = place.app(declare)
    gc.collect()
    gc.disable()
    try:
        before = rows()
        async with at_work(place, app, epoch_s=0.001) as engine:
            for number in range(EPOCHS):
                place.append("orders", [number], keys=b"a")
                await until(partial(sent, place, 2 * (number + 1)))
            assert engine.session.epochs >= EPOCHS
            # Each task has an open epoch, and one that is just being committed.
            assert rows() - before <= 2 * len(engine.session.tasks)
    finally:
        gc.enable()


def sent(place: Place, count: int) -> bool:
    return len(place.values("out")) >= count


def rows() -> int:
    return sum(isinstance(thing, Rows) for thing in gc.get_objects())
