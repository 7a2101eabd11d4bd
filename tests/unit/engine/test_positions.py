"""Positions: states round-trip, are found by their hints, and disagreement is refused; and workers against a naive model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import accumulate, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater as hw
from headwater.core.batch import Append, TopicPartition
from headwater.core.errors import RecoveryError
from headwater.engine import session as session_module
from headwater.engine.control import Control
from headwater.engine.cuts import recorded_cuts
from headwater.engine.history import fold_table
from headwater.engine.positions import _DECODER, Positions, TaskState
from headwater.log import open_log
from headwater.log.interface import Transaction
from tests.unit.engine.runs import Killed, Place

_numbers = count()
offsets = st.integers(0, 2**63 - 1)
places = st.dictionaries(st.sampled_from(["a/0", "b/1", "app.live.repartition.x.0/2#1"]), offsets, max_size=3)

states = st.builds(
    TaskState,
    task=st.integers(0, 9),
    sub=st.integers(0, 3),
    partition=st.integers(0, 9),
    epoch=offsets,
    positions=st.dictionaries(st.sampled_from(["one", "two.group_by", "decode"]), places, max_size=3),
    read=places,
    groups=st.lists(places, max_size=4),
    time=st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    clocks=places,
    changelog=places,
    emitted=places,
    marks=st.dictionaries(st.sampled_from(["end", "idle"]), st.booleans(), max_size=2),
    seen=places,
)


@given(states)
def test_a_state_is_the_same_after_writing_and_reading(state: TaskState) -> None:
    assert _DECODER.decode(state.encode()) == state


def test_a_state_of_an_older_version_has_defaults_and_a_newer_ones_fields_are_passed_over() -> None:
    assert _DECODER.decode(b'{"task": 3, "new": [1]}') == TaskState(3)


@settings(max_examples=60)
@given(st.lists(st.sets(st.integers(0, 4), min_size=1), max_size=12))
def test_the_last_state_of_each_task_is_found_by_its_hint(commits: list[set[int]]) -> None:
    """Commits of several workers' tasks are interleaved in one topic; each task finds its own last one."""
    log = open_log(f"memory://positions-{next(_numbers)}")
    positions = Positions(log, "app", "live")
    positions.create(5)
    member = log.join(positions.group, 5, lease_s=60)
    member.heartbeat()
    expected: dict[int, TaskState] = {}
    for epoch, tasks in enumerate(commits):
        chosen = [TaskState(task, epoch=epoch, read={"t/0": epoch}) for task in sorted(tasks)]
        hint = positions.hint()
        log.commit(
            Transaction(
                [Append("other", 0, [0], [None], [b"x"])]
                if log.topic("other")
                else [positions.append(chosen, 0)],
                {TopicPartition(positions.tasks, task): hint for task in tasks},
                member,
                sorted(tasks),
            )
        )
        expected |= {state.task: state for state in chosen}
        # Other keys in the topic (generation metadata) are no task's.
        log.append([Append(positions.epochs, 0, [0], [b"generation"], [b"{}"])])
    assert positions.load(range(5)) == expected
    for task in range(5):
        assert positions.load([task]) == ({task: expected[task]} if task in expected else {})


def test_positions_without_their_record_are_refused() -> None:
    """A log that was cut or copied without its epochs would have every sum counted again from the start."""
    log = open_log(f"memory://positions-{next(_numbers)}")
    positions = Positions(log, "app", "live")
    positions.create(2)
    member = log.join(positions.group, 2, lease_s=60)
    member.heartbeat()
    log.commit(Transaction([positions.append([TaskState(0)], 0)], {}, member, [0]))
    hint = positions.hint()
    log.commit(Transaction([], {TopicPartition(positions.tasks, 0): hint}, member, [0]))
    with pytest.raises(RecoveryError, match=r"tasks \[0\].*app.live.epochs"):
        positions.load([0, 1])


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=2),
    st.integers(1, 5),
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "session.dispatch",
                    "epoch.collect",
                    "epoch.before_log",
                    "epoch.between_log_and_store",
                    "epoch.committed",
                ]
            ),
            st.integers(1, 3),
        ),
        max_size=3,
    ),
    st.integers(1, 4),
)
def test_agents_that_hold_back_lose_and_double_nothing_whenever_a_worker_is_killed(
    times: list[list[int]], size: int, kills: list[tuple[str, int]], rounds: int
) -> None:
    """I1, I2, I3: sums, echoes and lists, restarted at any epoch, are those of a run that nothing happened to."""
    with TemporaryDirectory() as folder:
        place = Place(Path(folder))
        partitions = len(times)

        def declare(app: hw.App) -> None:
            topic = app.topic("orders", value_type=int)
            total = app.Table("total", default=int, local=True)

            @app.agent(topic, sink=[app.topic("echo")])
            async def echo(stream: hw.Stream) -> AsyncIterator[Any]:
                async for number in stream:
                    total["sum"] += number
                    yield [number, stream.now()]

            @app.agent(topic, sink=[app.topic("lists")])
            async def hold(stream: hw.Stream) -> AsyncIterator[Any]:
                async for numbers in stream.take(size):
                    yield numbers

        def run() -> None:
            place.run(declare, partitions=partitions)

        for topic in ("orders", "echo", "lists"):
            place.topic(topic, partitions)
        schedule = list(kills)
        cut = [[len(column) * r // rounds for r in range(rounds + 1)] for column in times]
        for r in range(rounds):
            for partition, column in enumerate(times):
                start, end = cut[partition][r], cut[partition][r + 1]
                if start < end:
                    numbers = [100 * partition + at for at in range(start, end)]
                    place.append("orders", numbers, partition=partition, times=column[start:end])
            if schedule:
                _killed(schedule.pop(0), run)
            run()
        for kill in schedule:
            _killed(kill, run)
        run()

        for partition, column in enumerate(times):
            numbers = [100 * partition + at for at in range(len(column))]
            echoed = [list(pair) for pair in zip(numbers, accumulate(column, max), strict=True)]
            assert place.values("echo", partition) == echoed
            full = len(numbers) // size * size
            assert place.values("lists", partition) == [
                numbers[at : at + size] for at in range(0, full, size)
            ]
            state = place.states(partitions)[partition]
            assert state.positions["echo"] == {f"orders/{partition}": len(numbers)}
            assert state.positions["hold"] == {f"orders/{partition}": full}
            assert state.read == {f"orders/{partition}": full}
            # The cuts are an unbroken walk from the start to the end of what was dispatched.
            cuts = list(recorded_cuts(place.log, place.archive, "app", "live", "live", partition))
            ends = [cut[f"orders/{partition}"] for cut in cuts]
            assert ends[-1] == len(numbers)
        sums = sum(100 * p + at for p, column in enumerate(times) for at in range(len(column)))
        assert sum(_sums(place, partitions)) == sums


def _sums(place: Place, partitions: int) -> list[int]:
    """Return the row `sum` of each part of the local table, from its own changelog."""
    found = Control(place.log, place.archive, "app").generation("live")
    folded = fold_table(place.log, place.archive, "app", found, "total")
    return [int(folded[partition][b"sum"]) for partition in range(partitions)]


def _killed(kill: tuple[str, int], run: Any) -> None:
    """Run a worker that is killed at the n-th pass of a point, or lives where it never gets there."""
    name, passing = kill
    passed = count(1)

    def point(reached: str) -> None:
        if reached == name and next(passed) == passing:
            raise Killed(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "point", point)
        try:
            run()
        except hw.HeadwaterError as error:
            assert name in str(error)  # noqa: PT017  (a kill may, or may not, be come to)
