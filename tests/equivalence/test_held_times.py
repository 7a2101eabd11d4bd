"""What `take` holds back over a restart has the task time it had when it came, so that results don't tell of the restart (I1, I11)."""

from __future__ import annotations

from pathlib import Path

import pytest

import headwater as hw
from tests.unit.engine.runs import Place, at_work, until


def declare(app: hw.App) -> None:
    early, late = app.topic("early", value_type=int), app.topic("late", value_type=int)
    seen = app.Table("seen", value_type=int)

    @app.agent(early, sink=[app.topic("out", value_type=int)])
    async def lists(stream: hw.Stream):  # type: ignore[no-untyped-def]
        async for values in stream.take(3, within=60):
            seen["now"] = stream.now()
            yield sum(values)

    @app.agent(late)
    async def singles(stream: hw.Stream) -> None:
        async for value in stream:
            seen["late"] = value


@pytest.mark.parametrize("restarts", [0, 1, 2])
async def test_event_time_of_a_held_list_does_not_hang_on_restarts(tmp_path: Path, restarts: int) -> None:
    place = Place(tmp_path)
    place.append("late", [1], times=[5])
    place.append("early", [7], times=[10])
    place.append("late", [2], times=[100])
    place.append("early", [8], times=[101])
    place.append("late", [3], times=[1_000])
    for _ in range(restarts):
        async with at_work(place, place.app(declare), epoch_s=0.02):
            await until(lambda: place.log.topic("app.live.changelog.seen") is not None)
            await until(lambda: place.table("seen").get(b"late") == 3)
        assert place.values("out") == []
    async with at_work(place, place.app(declare), until_idle=True) as engine:
        await until(engine.finished.is_set)
    assert place.values("out") == [15]
    assert place.table("seen") == {b"now": 101, b"late": 3}
