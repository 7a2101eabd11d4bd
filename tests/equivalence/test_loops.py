"""Topics that an app both reads and writes: a replay reads its own records there, not those of the run before it (I12)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import headwater as hw
from headwater.core.times import EARLIEST
from headwater.engine.control import Control
from headwater.engine.options import RunOptions
from headwater.engine.replay import prepare_replay
from tests.unit.engine.runs import Declare, Place, at_work, until

TOPICS = ("loop", "other")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for topic in TOPICS:
        place.topic(topic, 3)
        for partition in range(3):
            times = [10_000 * at + partition for at in range(6)]
            place.append(topic, range(6), partition=partition, times=times, keys=b"k%d" % partition)
    return place


def countdown(by: int) -> Declare:
    """Each number is counted and sends the one below it, to another partition; a second agent feeds the loop as well."""

    def declare(app: hw.App) -> None:
        loop, other = (app.topic(name, value_type=int) for name in TOPICS)
        seen = app.Table("seen", value_type=int, default=int, local=True)

        @app.agent(loop, sink=[loop])
        async def count(stream: hw.Stream):  # type: ignore[no-untyped-def]
            async for value in stream:
                seen[str(value)] += 1
                if value == 3:
                    await loop.send(value=0, key=f"far{value}", partition=2)
                if value >= by:
                    yield value - by

        @app.agent(other, sink=[loop])
        async def feed(stream: hw.Stream):  # type: ignore[no-untyped-def]
            async for value in stream:
                yield value

    return declare


def replay(place: Place, declare: Declare, name: str, *, follow: bool = False) -> None:
    app = place.app(declare)
    prepare_replay(app, place.log, place.archive, time_from=EARLIEST, name=name, follow=follow)
    place.run_app(place.app(declare), RunOptions(generation=name))


def counted(place: Place, generation: str) -> dict[str, int]:
    """Return the counts over all partitions (each has rows of its own: the table is local)."""
    from headwater.engine.history import fold_table

    found = Control(place.log, place.archive, "app").generation(generation)
    counts: dict[str, int] = {}
    for part in fold_table(place.log, place.archive, "app", found, "seen").values():
        for key, data in part.items():
            counts[key.decode()] = counts.get(key.decode(), 0) + int(data)
    return counts


def expected(by: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    waiting = [value for _ in range(2) for _ in range(3) for value in range(6)]
    while waiting:
        value = waiting.pop()
        counts[str(value)] = counts.get(str(value), 0) + 1
        if value == 3:
            waiting.append(0)
        if value >= by:
            waiting.append(value - by)
    return counts


@pytest.mark.timeout(60)
@pytest.mark.parametrize("archived", [False, True])
def test_a_replay_of_a_loop_ends_and_holds_what_live_held(place: Place, archived: bool) -> None:
    place.run(countdown(1), partitions=3)
    if archived:
        place.archive_all()
    replay(place, countdown(1), "same")
    assert counted(place, "live") == counted(place, "same") == expected(1)
    assert Control(place.log, place.archive, "app").generation("same").state == "finished"


@pytest.mark.timeout(60)
def test_a_replay_with_other_logic_reads_what_that_logic_sends(place: Place) -> None:
    place.run(countdown(1), partitions=3)
    replay(place, countdown(2), "twos")
    assert counted(place, "twos") == expected(2)


@pytest.mark.timeout(60)
def test_a_promoted_loop_goes_on_in_the_real_topic(place: Place) -> None:
    place.run(countdown(1), partitions=3)
    replay(place, countdown(1), "same")
    Control(place.log, place.archive, "app").promote("same")
    place.append("loop", [2], keys=b"k0", times=[90_000])
    place.run(countdown(1), partitions=3)
    more = {"2": 1, "1": 1, "0": 1}
    assert counted(place, "same") == {key: n + more.get(key, 0) for key, n in expected(1).items()}


def test_a_bounded_replay_of_a_loop_through_a_group_by_is_refused(place: Place) -> None:
    def declare(app: hw.App) -> None:
        loop = app.topic("loop", value_type=int)

        @app.agent(loop.stream().group_by(str), sink=[loop])
        async def around(stream: hw.Stream):  # type: ignore[no-untyped-def]
            async for value in stream:
                if value:
                    yield value - 1

    place.run(declare, partitions=3)
    with pytest.raises(hw.HeadwaterError, match="--follow"):
        replay(place, declare, "never")


@pytest.mark.timeout(60)
async def test_a_replay_that_follows_a_loop_keeps_up_with_live_epochs(place: Place) -> None:
    app = place.app(countdown(1))
    prepare = place.app(countdown(1))
    await asyncio.to_thread(
        prepare_replay, prepare, place.log, place.archive, time_from=EARLIEST, name="f", follow=True
    )
    async with at_work(place, app, generation="f") as engine:
        await until(lambda: place.log.topic("app.f.changelog.seen") is not None)
        await until(lambda: counted(place, "f") == expected(1), 20)
        assert engine.session.epoch_s == 0.1
        assert engine.error is None
