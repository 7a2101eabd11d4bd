"""A task's watermark as agents see it: over inputs, through group_by, over restarts, groups and workers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headwater as hw
from headwater.engine.replay import prepare_replay
from headwater.engine.run import RunOptions
from headwater.merge.channel import NEVER
from headwater.merge.merge import Merge
from tests.unit.engine.runs import Place, at_work, killed_at, until


def _watching(*topics: str, grouped: bool = False, take: int = 0, **options: Any) -> Any:
    """Declare an agent that sends, for each record, its value and the watermark it sees."""

    def declare(app: hw.App) -> None:
        seen = app.topic("seen")
        declared = [app.topic(name, **options) for name in topics]
        stream: Any = declared[0] if len(topics) == 1 else app.topic(*topics, **options)
        if grouped:
            stream = stream.group_by("k")

        @app.agent(stream)
        async def watch(stream: hw.Stream) -> None:
            if take:
                async for values in stream.take(take):
                    await seen.send(value=[[v["n"] for v in values], stream.watermark])
                return
            async for value in stream:
                await seen.send(value=[value["n"], stream.watermark])

    return declare


def _records(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"n": n, "k": f"k{n % 3}"} for n in range(first, first + count)]


def test_a_task_of_one_partition_has_its_watermark(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.append("t", _records(4), times=[1000, 1500, 1200, 253402300799000])
    place.run(_watching("t", lateness=0.1))
    assert place.values("seen") == [[0, NEVER], [1, 1400], [2, 1400], [3, 1400]]


def test_a_task_of_two_inputs_has_the_least(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.append("a", _records(3), times=[1000, 1500, 3000])
    place.append("b", _records(3, 10), times=[1100, 1200, 2000])
    place.run(_watching("a", "b"))
    assert place.values("seen") == [
        [0, NEVER], [10, NEVER], [11, NEVER], [1, 1200], [12, 1500], [2, 2000],
    ]  # fmt: skip


def test_an_input_that_never_had_a_record_is_ignored_until_its_first(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.append("a", _records(2), times=[1000, 1500])
    place.topic("b")
    declare = _watching("a", "b")
    place.run(declare)
    assert place.values("seen") == [[0, NEVER], [1, 1500]]
    place.append("b", _records(3, 10), times=[1600, 1700, 1800])
    place.append("a", _records(2, 2), times=[2000, 2500])
    place.run(declare)
    # It never goes back: b's first records find it where it was.
    assert [at for _, at in place.values("seen")[2:]] == [1500, 1500, 1500, 1800, 1800]


@pytest.mark.parametrize("records_max", [1, 3, 10_000])
def test_event_time_from_the_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records_max: int) -> None:
    """ms, ISO text and nothing at all, in one topic; what can't be decoded has the record's own."""
    monkeypatch.setattr(Merge.__init__, "__kwdefaults__", {"records_max": records_max})
    place = Place(tmp_path)
    values: list[Any] = [
        {"n": 0, "when": 5000}, {"n": 1, "when": "1970-01-01T00:00:06Z"}, {"n": 2}, b"{", {"n": 3, "when": True},
        {"n": 4, "when": 9000},
    ]  # fmt: skip
    place.append("t", values, times=[1, 2, 7000, 7500, 8000, 3])
    place.run(_watching("t", event_time="when"))
    assert place.values("seen") == [[0, NEVER], [1, 6000], [2, 7000], [3, 8000], [4, 9000]]
    [(_, value, info)] = place.dead()
    assert (value, info["agent"]) == (b"{", "decode")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_watermarks_are_the_same_over_restarts_with_records_held_back(
    tmp_path: Path, data: st.DataObject
) -> None:
    """I2: what `take` holds back comes again with the watermark it had."""
    times = data.draw(st.lists(st.integers(1000, 1100), min_size=4, max_size=12))
    whole, cut = Place(tmp_path), Place(tmp_path / "cut")
    records = _records(len(times))
    for place in (whole, cut):
        place.topic("t")
    declare = _watching("t", take=3)
    whole.append("t", records, times=times)
    whole.run(declare)
    at = 0
    while at < len(times):
        size = data.draw(st.integers(1, len(times)))
        cut.append("t", records[at : at + size], times=times[at : at + size])
        cut.run(declare)
        at += size
    assert cut.values("seen") == whole.values("seen")
    assert cut.states()[0].watermarks == whole.states()[0].watermarks


def test_through_a_group_by_the_watermark_is_the_least_of_the_senders(tmp_path: Path) -> None:
    """I11: marks carry it; nothing passes before each sender has said how far it is."""
    place = Place(tmp_path)
    place.topic("t", 2)
    place.topic("seen", 1)
    place.append("t", _records(3), times=[1000, 2000, 3000])
    place.append("t", _records(3, 10), partition=1, times=[1500, 1600, 1700])
    declare = _watching("t", grouped=True)
    place.run(declare, partitions=2)
    # In one sitting all went through before any mark: the first ones find none.
    states = place.states(4)
    assert sorted(s.watermark for s in states.values() if s.watermark is not None) == [1700, 1700, 1700, 3000]
    place.append("t", _records(3, 20), times=[4000, 4500, 5000])
    place.run(declare, partitions=2)
    found = dict(place.values("seen"))
    assert {found[n] for n in (20, 21, 22)} == {1700}


def test_an_empty_partition_does_not_hold_what_is_behind_a_group_by(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.topic("t", 3)
    place.append("t", _records(3), times=[1000, 2000, 3000])
    place.append("t", _records(1, 10), partition=1, times=[1500])
    declare = _watching("t", grouped=True)
    place.run(declare, partitions=3)
    downstream = [place.states(6)[number].watermark for number in range(3, 6)]
    assert downstream == [None, None, None]  # partition 1 has one record, which nothing bears out yet
    place.append("t", _records(1, 11), partition=1, times=[2500])
    place.run(declare, partitions=3)
    assert [place.states(6)[number].watermark for number in range(3, 6)] == [2500] * 3


@pytest.mark.parametrize("point", ["epoch.before_log", "epoch.between_log_and_store", "epoch.committed"])
@pytest.mark.parametrize("passing", [1, 2, 3])
def test_marks_come_again_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, passing: int
) -> None:
    place = Place(tmp_path)
    place.topic("t", 2)
    place.topic("seen", 1)
    declare = _watching("t", grouped=True)
    place.append("t", _records(3), times=[1000, 2000, 3000])
    place.append("t", _records(3, 10), partition=1, times=[1500, 1600, 1700])
    try:
        with killed_at(monkeypatch, point, passing):
            place.run(declare, partitions=2)
    except pytest.fail.Exception:
        assert passing > 2  # the worker was done before
    place.run(declare, partitions=2)
    assert sorted(n for n, _ in place.values("seen")) == [0, 1, 2, 10, 11, 12]
    assert [place.states(4)[number].watermark for number in range(2, 4)] == [1700, 1700]


@pytest.mark.parametrize("grouped", [False, True])
def test_a_silent_input_is_left_out_after_idle_after_and_a_replay_in_live_order_knows(
    tmp_path: Path, grouped: bool
) -> None:
    """Decided by the wall clock, live only, and written into the cuts: in time order it never was."""
    place = Place(tmp_path)
    declare = _watching("a", "b", idle_after=0.15, grouped=grouped)
    place.append("a", _records(3), times=[1000, 2000, 3000])
    place.append("b", _records(2, 10), times=[1000, 1500])
    number = 1 if grouped else 0

    def watermark(generation: str = "live") -> int | None:
        state = place.states(2, generation=generation).get(number)
        return None if state is None else state.watermark

    async def live() -> None:
        async with at_work(place, place.app(declare, epoch_s=0.01)):
            await until(lambda: watermark() == 3000)
            place.append("a", _records(1, 3), times=[4000])
            await until(lambda: watermark() == 4000)
            # It is back, behind the others: the task's watermark stays where it is.
            place.append("b", _records(1, 12), times=[1600])
            await until(lambda: len(place.values("seen")) == 7)

    asyncio.run(live())
    assert place.values("seen")[-2:] == [[3, 3000 if grouped else 4000], [12, 4000]]
    place.archive_all()
    for order in ("live", "time"):
        app = place.app(declare)
        made = prepare_replay(
            app, place.log, place.archive, time_from=-(1 << 63), name=f"by-{order}", order=order
        )
        place.run_app(app, RunOptions(generation=made.name))
        seen = place.values(f"app.by-{order}.out.seen")
        assert (seen == place.values("seen")) == (order == "live")
        assert watermark(made.name) == (4000 if order == "live" else 1600)
