"""The pace of a replay's sources: none runs far ahead of the slowest, by time or by bytes, and the slowest is never held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.engine.pace import Pace
from headwater.engine.positions import TaskState
from headwater.engine.replay import prepare_replay
from headwater.engine.run import RunOptions
from headwater.engine.task import Task
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
    assert furthest <= 5_000 + GROUP * 100
    assert early <= 50 + 2 * GROUP  # five seconds of it, and groups that end beyond


def test_without_a_span_the_buffers_are_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, early = _replayed(tmp_path, monkeypatch, buffer_bytes=1 << 16)
    # 64 KB, a quarter of it for three sources, at about 190 bytes a record.
    assert early <= 30 + GROUP


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
        number, task_time = 0, 5_000
        inputs: tuple[Any, ...] = (type("I", (), {"ended": False})(),)

    task: Any = _Task()
    pace.watch({0: task})
    assert pace.others() == [1]
    assert pace.holds(task)  # nothing is known of the other
    pace.learn({1: TaskState(1, time=3_999)})
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
    task.inputs = (type("I", (), {"ended": True})(),)
    assert not by_bytes.holds(task)
