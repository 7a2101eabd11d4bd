"""Own watermarks travel with records through a group_by: the same ones live, cut and killed anyhow, and in every replay."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headwater as hw
from headwater.core.errors import HeadwaterError
from headwater.core.header import MARK, decode_origin, watermark_of
from headwater.engine import session as session_module
from headwater.engine.replay import prepare_replay
from headwater.engine.run import RunOptions
from headwater.merge.merge import Merge
from tests.unit.engine.runs import Place
from tests.unit.merge.test_watermark import JUMP, LATENESS, event_times, naive

POINTS = ("session.dispatch", "epoch.before_log", "epoch.between_log_and_store", "epoch.committed")


def _declare(take: int) -> Any:
    """Declare an agent behind a group_by that holds records back, and one beside it that doesn't."""

    def declare(app: hw.App) -> None:
        topic = app.topic("t", lateness=LATENESS / 1000, max_jump=JUMP / 1000)
        out = app.topic("out")

        @app.agent(topic.group_by("k"))
        async def behind(stream: hw.Stream) -> None:
            async for values in stream.take(take):
                await out.send(value=[[v["n"] for v in values], stream.watermark > 0])

        @app.agent(topic)
        async def beside(stream: hw.Stream) -> None:
            async for _ in stream.take(take + 1):
                pass

    return declare


def _own(place: Place, generation: str) -> dict[tuple[int, int], int]:
    """Return the own watermark of each source record, as the repartition topic has it; the same one if it is there twice."""
    found: dict[tuple[int, int], int] = {}
    for partition in range(2):
        batch = place.batch(f"app.{generation}.repartition.behind.0", partition)
        for at in range(len(batch)):
            name, value = batch.headers_at(at)[-1]
            if name == MARK:
                continue
            assert value is not None
            origin = decode_origin(value)
            own = watermark_of(origin.behind, batch.timestamps[at] + origin.ahead_ms)
            assert found.setdefault((origin.partition, origin.offset), own) == own
    return found


def _run(place: Place, declare: Any, options: RunOptions, crashes: list[int]) -> None:
    """Run a worker; it ends at the given passes of crash points, and is started again."""
    left, passes = list(crashes), 0

    def point(at: str) -> None:
        nonlocal passes
        if at in POINTS and left:
            passes += 1
            if passes >= left[0]:
                left.pop(0)
                passes = 0
                raise RuntimeError(at)

    with patch.object(session_module, "point", point):
        for _ in range(len(crashes) + 1):
            with suppress(HeadwaterError) if left else patch.object(session_module, "point", point):
                place.run_app(place.app(declare, partitions=2, epoch_s=0.002), options)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(event_times(), min_size=2, max_size=2),
    st.integers(1, 4),
    st.integers(1, 9),
    st.lists(st.integers(1, 6), max_size=3),
)
def test_own_watermarks_are_a_function_of_the_partition(
    tmp_path_factory: pytest.TempPathFactory,
    partitions: list[list[int]],
    take: int,
    group: int,
    crashes: list[int],
) -> None:
    """I11: batches, groups, restarts with records held back, and the order of a replay change nothing."""
    place = Place(Path(tmp_path_factory.mktemp("place")))
    place.topic("t", 2)
    declare = _declare(take)
    halves = [len(times) // 2 for times in partitions]
    with patch.object(Merge.__init__, "__kwdefaults__", {"records_max": group}):
        for first in (True, False):
            for partition, (times, half) in enumerate(zip(partitions, halves, strict=True)):
                part = times[:half] if first else times[half:]
                if part:
                    values = [{"k": n % 3, "n": n} for n in range(len(part))]
                    place.append("t", values, times=part, partition=partition)
            _run(place, declare, RunOptions(until_idle=True), crashes)
    expected = {
        (partition, offset): own
        for partition, times in enumerate(partitions)
        for offset, own in enumerate(naive(times)[0])
    }
    assert _own(place, "live") == expected
    place.archive_all()
    for order in ("time", "live"):
        app = place.app(declare, partitions=2)
        made = prepare_replay(
            app, place.log, place.archive, time_from=-(1 << 63), name=f"by-{order}", order=order
        )
        _run(place, declare, RunOptions(generation=made.name), crashes)
        assert _own(place, made.name) == expected, order
