"""The pace of a replay's sources: none runs far ahead of the slowest, by time or by bytes, and the slowest is never held."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import headwater as hw
from headwater.core.partitioner import partition_of
from headwater.engine import pace as pace_module
from headwater.engine.pace import Pace
from headwater.engine.positions import TaskState
from headwater.engine.replay import prepare_replay
from headwater.engine.run import RunOptions
from headwater.engine.task import Task
from headwater.merge.channel import END_OF_TIME
from headwater.merge.merge import Group, Merge
from tests.unit.engine.runs import Place

GROUP = 10


def _declare(app: hw.App) -> None:
    counts = app.Table("counts", default=int)

    @app.agent(app.topic("events").group_by("k"))
    async def count(stream: hw.Stream) -> None:
        async for value in stream:
            counts[str(value["k"])] += 1


def _replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[int, int]:
    """Replay unequal partitions; return how far, in ms, the last one's source was ahead of the slowest at the end of its
    groups but the first, and how many records it took before the slowest had come to half its time.
    """
    monkeypatch.setattr(Merge.__init__, "__kwdefaults__", {"records_max": GROUP})
    place = Place(tmp_path)
    place.topic("events", 3)
    shapes = [range(100_000, 200_000, 200), range(150_000, 200_000, 100), range(100_000, 150_000, 5_000)]
    for partition, times in enumerate(shapes):
        values = [{"k": n % 7, "fill": "x" * 100} for n in range(len(times))]
        place.append("events", values, times=list(times), partition=partition)
    place.run(_declare)
    live = place.table("counts")
    app = place.app(_declare, epoch_s=0.01, **options)
    made = prepare_replay(app, place.log, place.archive, time_from=-(1 << 63), name="again")
    tasks: dict[int, Task] = {}
    furthest = early = groups = 0
    step = Task.step

    async def stepped(task: Task, group: Group) -> None:
        nonlocal furthest, early, groups
        tasks[task.number] = task
        await step(task, group)
        slowest = tasks.get(0)
        if task.number != 1 or slowest is None:
            return
        groups += 1
        if groups > 1 and not all(i.ended for i in slowest.inputs):
            furthest = max(furthest, task.task_time - slowest.task_time)
        if slowest.task_time < 150_000:
            early += len(group)

    monkeypatch.setattr(Task, "step", stepped)
    place.run_app(app, RunOptions(generation=made.name))
    assert place.table("counts", generation="again") == live
    return furthest, early


def test_no_source_runs_further_than_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the group that takes it there."""
    furthest, early = _replayed(tmp_path, monkeypatch, ahead=5)
    # The slowest is where its next record is, 200 ms on.
    assert furthest <= 5_000 + GROUP * 100 + 200
    assert early <= 50 + 2 * GROUP  # five seconds of it, and groups that end beyond


def test_without_a_span_the_buffers_are_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, early = _replayed(tmp_path, monkeypatch, buffer_bytes=1 << 16)
    # 64 KB, a quarter of it for three sources, at about 190 bytes a record.
    assert early <= 30 + GROUP


def _dense_events(tmp_path: Path) -> tuple[Place, list[str]]:
    """Make two topics of two partitions, the first of them filled; return with them keys that are all of partition 0."""
    place = Place(tmp_path)
    place.topic("events", 2)
    place.topic("rates", 2)
    keys = [key for n in range(20) if partition_of((key := f"k{n}").encode(), 2) == 0]
    for partition in range(2):
        events = [{"k": keys[n % 3], "n": n, "fill": "x" * 100} for n in range(1000)]
        place.append("events", events, times=list(range(100_000, 200_000, 100)), partition=partition)
    return place, keys


def _declare_join(app: hw.App) -> None:
    rates = app.topic("rates").stream().table("rates")
    joined = app.topic("events").stream().join(rates, on="k", as_of=True, how="left", name="rated")
    joined.to(app.topic("rated"))


@pytest.mark.timeout(60)
def test_a_task_that_waits_for_what_others_send_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the tasks that join gets no record at all; the other has its table's next one long after the buffers are full."""
    monkeypatch.setattr(Merge.__init__, "__kwdefaults__", {"records_max": GROUP})
    monkeypatch.setattr(pace_module, "STILL_S", 3600.0)
    place, keys = _dense_events(tmp_path)
    rates = [{"rate": 1}, {"rate": 2}]
    place.append("rates", rates, keys=[keys[0].encode()] * 2, times=[90_000, 190_000], partition=0)
    place.run(_declare_join)
    app = place.app(_declare_join, epoch_s=0.01, buffer_bytes=1 << 16)
    made = prepare_replay(app, place.log, place.archive, time_from=-(1 << 63), name="again")
    place.run_app(app, RunOptions(generation=made.name))
    assert app.engine.session.pace is not None
    live, again = (sorted(map(str, place.values(topic))) for topic in ("rated", "app.again.out.rated"))
    assert len(again) >= 1_800  # the last ones wait for the watermark
    assert again == live


def _declare_two_joins(app: hw.App) -> None:
    rates = app.topic("rates").stream()
    events = app.topic("events").stream()
    events.join(rates.table("rates"), on="k", as_of=True, how="left", name="rated").to(app.topic("rated"))
    # By another key than the table's, so rates are sent on by the tasks that keep the table.
    both = (["k", lambda value: value["k"]],) * 2
    events.join(rates, on=both, within=(1, 0), name="near").to(app.topic("near"))


@pytest.mark.timeout(60)
def test_who_waits_for_a_task_without_records_hears_how_far_its_inputs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Merge.__init__, "__kwdefaults__", {"records_max": GROUP})
    place, keys = _dense_events(tmp_path)
    rates = [{"k": keys[n % 3], "rate": n} for n in range(100)]
    homes = [keys[n % 3].encode() for n in range(100)]
    place.append("rates", rates, keys=homes, times=list(range(100_000, 200_000, 1_000)), partition=0)
    place.run(_declare_two_joins)
    app = place.app(_declare_two_joins, epoch_s=0.01, buffer_bytes=1 << 16)
    made = prepare_replay(app, place.log, place.archive, time_from=-(1 << 63), name="again")
    waiting = 0
    step = Task.step

    async def stepped(task: Task, group: Group) -> None:
        nonlocal waiting
        waiting = max(waiting, task.merge.waiting() if task.sub.topics[0].startswith("app.again.rep") else 0)
        await step(task, group)

    monkeypatch.setattr(Task, "step", stepped)
    place.run_app(app, RunOptions(generation=made.name))
    live, again = (sorted(map(str, place.values(topic))) for topic in ("near", "app.again.out.near"))
    assert len(again) > 700
    assert again == live
    assert 0 < waiting < 400  # of 2,000


def test_where_nothing_moves_for_a_while_a_group_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    plan: Any = SimpleNamespace(
        topology=SimpleNamespace(
            subs=[SimpleNamespace(topics=["events"], senders={}, first_task=0, partitions=2)], repartition_topics=["x"]
        ),
        total_order=True,
    )  # fmt: skip
    now_s = [100.0]
    monkeypatch.setattr(pace_module, "SYSTEM_CLOCK", SimpleNamespace(monotonic_s=lambda: now_s[0]))
    pace = Pace(plan, ahead_ms=1_000, bytes_max=1)
    task: Any = SimpleNamespace(number=0, task_time=5_000, source_time=5_000)
    pace.watch({0: task})
    pace.learn({1: TaskState(1, time=1_000)})
    assert pace.holds(task)
    now_s[0] += pace_module.STILL_S
    assert not pace.holds(task)
    assert pace.holds(task)  # one group, no more
    now_s[0] += pace_module.STILL_S / 2
    pace.learn({1: TaskState(1, time=2_000)})
    assert pace.holds(task)
    now_s[0] += pace_module.STILL_S / 2
    assert pace.holds(task)  # it has moved since


def test_tasks_of_other_workers_are_known_by_what_they_committed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.topic("events", 2)
    place.append("events", [{"k": 1}], partition=0)
    place.append("events", [{"k": 1}], partition=1)
    app = place.app(_declare)
    made = prepare_replay(app, place.log, place.archive, time_from=-(1 << 63), name="again")
    place.run_app(app, RunOptions(generation=made.name))
    plan = app.engine.session.plan
    pace = Pace(plan, ahead_ms=1_000, bytes_max=1)
    assert pace.is_needed
    assert pace.others() == [0, 1]

    class _Task:
        number, task_time, source_time = 0, 5_000, 5_000

    task: Any = _Task()
    pace.watch({0: task})
    assert pace.others() == [1]
    assert pace.holds(task)  # nothing is known of the other
    pace.learn({1: TaskState(1, time=3_999)})
    assert pace.holds(task)
    pace.learn({1: TaskState(1, time=3_000, marks={"next": 4_000})})  # that of the record it will take
    assert not pace.holds(task)
    pace.learn({1: TaskState(1, time=3_000)})
    assert pace.holds(task)
    pace.learn({1: TaskState(1, time=4_000)})
    assert not pace.holds(task)
    pace.learn({1: TaskState(1, time=3_000, marks={"end": True})})
    assert not pace.holds(task)

    by_bytes = Pace(plan, ahead_ms=None, bytes_max=200)
    by_bytes.watch({0: task})
    by_bytes.learn({1: TaskState(1, time=1_000)})
    for time, nbytes in ((500, 90), (1_500, 60), (5_000, 40)):
        by_bytes.took(task, time, nbytes)
    assert not by_bytes.holds(task)  # 100 of 200 for two sources lie past the least time
    by_bytes.took(task, 5_000, 1)
    assert by_bytes.holds(task)
    by_bytes.learn({1: TaskState(1, time=1_500)})
    assert not by_bytes.holds(task)

    # What was taken past the others' last time is the task's for good: at its own end it must not wait for it.
    by_bytes.took(task, 9_000, 150)
    assert by_bytes.holds(task)
    by_bytes.learn({1: TaskState(1, time=1_500, marks={"end": True})})
    task.source_time = END_OF_TIME
    assert not by_bytes.holds(task)
