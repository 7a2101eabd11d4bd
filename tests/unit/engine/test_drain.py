"""END-OF-TIME: marks in the inputs once all is idle, seen by nobody but the watermarks; ends of replays that count as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.core.header import is_end_of_time
from headwater.engine.options import RunOptions
from headwater.engine.replay import prepare_replay
from headwater.merge.channel import END_OF_TIME
from tests.unit.engine.runs import Place, killed_at

DRAIN = RunOptions(until_idle=True, drain=True)


def _marks(place: Place, topic: str, partitions: int = 1) -> list[int]:
    """Return how many marks each partition holds."""
    found = []
    for partition in range(partitions):
        batch = place.batch(topic, partition)
        found.append(sum(is_end_of_time(batch.headers_at(at)) for at in range(len(batch))))
    return found


def _chain(app: hw.App) -> None:
    """a -> b by a sink, b -> c by a send in the body, c read behind a group_by."""
    a, b, c, out = (app.topic(name) for name in ("a", "b", "c", "out"))

    @app.agent(a, sink=[b])
    async def first(stream: hw.Stream) -> Any:
        async for value in stream:
            yield value

    @app.agent(b)
    async def second(stream: hw.Stream) -> None:
        async for value in stream:
            await c.send(value=value)

    @app.agent(c.group_by("k"))
    async def third(stream: hw.Stream) -> None:
        async for value in stream:
            await out.send(value=[value["n"], stream.watermark])


def _records(count: int) -> list[dict[str, Any]]:
    return [{"n": n, "k": n % 2} for n in range(count)]


def _chained(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for name in ("a", "b", "c"):
        place.topic(name, 2)
    place.topic("out")
    place.append("a", _records(5))
    return place


def test_all_inputs_end_and_all_tasks_come_to_the_end_of_time(tmp_path: Path) -> None:
    place = _chained(tmp_path)
    place.run(_chain, options=DRAIN)
    assert [_marks(place, topic, 2) for topic in ("a", "b", "c")] == [[1, 1]] * 3
    assert sorted(n for n, _ in place.values("out")) == [0, 1, 2, 3, 4]
    watermarks = [place.states(8)[number].watermark for number in range(8)]
    # Only what is behind c keeps watermarks, and what sends to it.
    assert watermarks == [None] * 4 + [END_OF_TIME] * 4


def test_marks_come_after_what_the_app_itself_writes(tmp_path: Path) -> None:
    """b's marks come when a is done with, c's when b is: nothing follows a mark."""
    place = _chained(tmp_path)
    place.run(_chain, options=DRAIN)
    for topic in ("a", "b", "c"):
        for partition in range(2):
            batch = place.batch(topic, partition)
            assert is_end_of_time(batch.headers_at(len(batch) - 1)), (topic, partition)


def test_a_second_drain_writes_nothing(tmp_path: Path) -> None:
    place = _chained(tmp_path)
    place.run(_chain, options=DRAIN)
    place.run(_chain, options=DRAIN)
    assert [_marks(place, topic, 2) for topic in ("a", "b", "c")] == [[1, 1]] * 3


@pytest.mark.parametrize(
    ("point", "passing"),
    [
        ("drain.before", 1), ("drain.marked", 1), ("drain.marked", 2), ("drain.marked", 3), ("epoch.before_log", 3),
        ("epoch.committed", 3), ("epoch.committed", 5),
    ],
)  # fmt: skip
def test_a_drain_goes_on_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, passing: int
) -> None:
    """I3: killed anywhere between, the next worker ends what is left, and nothing twice."""
    place = _chained(tmp_path)
    with killed_at(monkeypatch, point, passing):
        place.run(_chain, options=DRAIN)
    place.run(_chain, options=DRAIN)
    assert sorted(n for n, _ in place.values("out")) == [0, 1, 2, 3, 4]
    assert [place.states(8)[number].watermark for number in range(4, 8)] == [END_OF_TIME] * 4
    assert all(1 <= marks <= 2 for topic in ("a", "b", "c") for marks in _marks(place, topic, 2))


def test_a_replay_sees_the_marks(tmp_path: Path) -> None:
    place = _chained(tmp_path)
    place.run(_chain, options=DRAIN)
    place.archive_all()
    for order in ("time", "live"):
        app = place.app(_chain)
        made = prepare_replay(
            app, place.log, place.archive, time_from=-(1 << 63), name=f"by-{order}", order=order
        )
        place.run_app(app, RunOptions(generation=made.name))
        states = place.states(8, generation=made.name)
        assert [states[number].watermark for number in range(4, 8)] == [END_OF_TIME] * 4, order


def test_the_end_of_a_replay_counts_as_one_only_if_told(tmp_path: Path) -> None:
    def grouped(app: hw.App) -> None:
        out = app.topic("out")

        @app.agent(app.topic("a").group_by("k"))
        async def third(stream: hw.Stream) -> None:
            async for value in stream:
                await out.send(value=[value["n"], stream.watermark])

    place = _chained(tmp_path)
    place.append("a", _records(3), partition=1)
    place.run(grouped)
    ends = [place.log.end_offset("a", partition) for partition in range(2)]
    for drain in (False, True):
        app = place.app(grouped)
        made = prepare_replay(
            app, place.log, place.archive, time_from=-(1 << 63), name=f"d{drain}", drain=drain
        )
        place.run_app(app, RunOptions(generation=made.name))
        states = place.states(4, generation=made.name)
        expected = END_OF_TIME if drain else 1002
        assert [states[number].watermark for number in (2, 3)] == [expected] * 2
    assert [place.log.end_offset("a", partition) for partition in range(2)] == ends


def test_a_generation_that_is_not_promoted_may_not_end_the_inputs(tmp_path: Path) -> None:
    place = _chained(tmp_path)
    app = place.app(_chain)
    made = prepare_replay(app, place.log, place.archive, time_from=-(1 << 63), name="v2", follow=True)
    with pytest.raises(hw.HeadwaterError, match="not promoted"):
        place.run_app(app, RunOptions(generation=made.name, until_idle=True, drain=True))
    assert _marks(place, "a", 2) == [0, 0]
