"""Event-time timers: run for each multiple that the watermark passes, between the very records, once over crashes and replays."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headwater as hw
from headwater.engine.replay import prepare_replay
from headwater.engine.run import RunOptions
from headwater.merge.merge import Merge
from tests.unit.engine.runs import Place, killed_at

DRAIN = RunOptions(until_idle=True, drain=True)


def _counting(app: hw.App) -> None:
    """Count records, and write the count so far at each ten seconds, and into a table."""
    count = app.Table("count", default=int)
    snapshots = app.Table("snapshots", default=int, local=True)
    ticks = app.topic("ticks")

    @app.agent(app.topic("t"))
    async def add(stream: hw.Stream) -> None:
        async for _ in stream:
            count["all"] += 1

    @app.timer(10, event_time=True)
    async def tick(time_ms: int) -> None:
        await ticks.send(value=[time_ms, count["all"]])
        snapshots[str(time_ms)] = count["all"]


def _naive(times: list[int], *, drained: bool) -> list[list[int]]:
    """Return (multiple, records before it is run), record by record."""
    out, last, clock = [], None, None
    for number, time in enumerate(times):
        if clock is not None and last is None:
            last = clock // 10_000
        before, clock = clock, max(time, clock or time)
        if before is not None and last is not None:
            while (last + 1) * 10_000 <= clock:
                last += 1
                out.append([last * 10_000, number + 1])
    if drained and times:
        last = times[0] // 10_000 if last is None else last
        out.append([(last + 1) * 10_000, len(times)])
    return out


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 25_000), max_size=15), st.integers(1, 5), st.data())
def test_timers_run_between_the_records(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], group: int, data: st.DataObject
) -> None:
    """I11: however groups and sittings fall, and in replays; the table is written in the epoch."""
    place = Place(Path(tmp_path_factory.mktemp("place")))
    place.topic("t")
    times, time = [], 100_000
    for step in steps:
        time += step - 3_000
        times.append(time)
    cuts = sorted({0, len(times), *data.draw(st.lists(st.integers(0, len(times)), max_size=3))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Merge.__init__, "__kwdefaults__", {"records_max": group})
        for start, end in pairwise(cuts):
            place.append("t", list(range(end - start)), times=times[start:end])
            place.run(_counting)
        expected = _naive(times, drained=False)
        assert _ticks(place, "ticks") == expected
        place.run(_counting, options=DRAIN)
        expected = _naive(times, drained=True)
        assert _ticks(place, "ticks") == expected
        if not times:
            return
        assert place.table("snapshots") == {str(time).encode(): n for time, n in expected}
        place.archive_all()
        for order in ("time", "live"):
            app = place.app(_counting)
            made = prepare_replay(
                app, place.log, place.archive, time_from=-(1 << 63), name=f"by-{order}", order=order
            )
            place.run_app(app, RunOptions(generation=made.name))
            assert _ticks(place, f"app.by-{order}.out.ticks") == expected


def _ticks(place: Place, topic: str) -> list[Any]:
    return [] if place.log.topic(topic) is None else place.values(topic)


@pytest.mark.parametrize("point", ["epoch.before_log", "epoch.between_log_and_store", "epoch.committed"])
@pytest.mark.parametrize("passing", [1, 2])
def test_a_tick_is_run_once_over_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, passing: int
) -> None:
    """I2: which multiple was run last is in the task's state."""
    place = Place(tmp_path)
    times = [100_000, 101_000, 125_000, 126_000, 131_000]
    for time in times[:3]:
        place.append("t", [0], times=[time])
    if passing == 2:
        place.run(_counting)
        passing = 1
    for time in times[3:]:
        place.append("t", [0], times=[time])
    with killed_at(monkeypatch, point, passing):
        place.run(_counting)
    place.run(_counting)
    assert place.values("ticks") == [[110_000, 3], [120_000, 3], [130_000, 5]]
    batch = place.batch("ticks")
    assert list(batch.timestamps) == [110_000, 120_000, 130_000]


def test_a_failing_tick_is_undone_and_run_again_then_the_worker_stops(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.append("t", [0, 1, 2, 3], times=[100_000, 101_000, 115_000, 125_000])
    fails = [True, True]

    def declare(app: hw.App) -> None:
        seen = app.Table("seen", default=int)

        @app.agent(app.topic("t"))
        async def add(stream: hw.Stream) -> None:
            async for value in stream:
                seen[str(value)] = 1

        @app.timer(timedelta(seconds=10), event_time=True, name="late", tables=[seen])
        async def tick(time_ms: int) -> None:
            seen["ticks"] += 1
            if time_ms == 120_000 and fails:
                fails.pop()
                raise ValueError("not yet")

    with pytest.raises(hw.HeadwaterError, match="timer 'late' fails at event time 120000 after 1 attempts"):
        place.run(declare, retries=0)
    place.run(declare, retries=1)
    assert place.table("seen")[b"ticks"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0}, "longer than nothing"),
        ({"interval": 10, "on_leader": True}, "means nothing in event time"),
        ({"interval": 10, "tables": ["t"]}, "takes tables"),
    ],
)
def test_what_an_event_timer_can_not_have_is_named(options: dict[str, Any], message: str) -> None:
    app = hw.App("app")
    with pytest.raises(hw.MisuseError, match=message):

        @app.timer(event_time=True, **options)
        async def tick(time_ms: int) -> None:
            pass


def test_a_timer_of_two_tasks_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.append("a", [0])
    place.append("b", [0])

    def declare(app: hw.App) -> None:
        tables = [app.Table(name, default=int) for name in ("x", "y")]
        for name, table in zip(("a", "b"), tables, strict=True):

            @app.agent(app.topic(name), name=f"read_{name}", tables=[table])
            async def read(stream: hw.Stream) -> None:
                async for _ in stream:
                    pass

        @app.timer(10, event_time=True)
        async def both(time_ms: int) -> None:
            tables[0]["n"] = tables[1]["n"]

    with pytest.raises(hw.TopologyError, match="different tasks"):
        place.run(declare)
