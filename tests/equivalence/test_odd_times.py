"""Odd event times under windows: a year 9999, -1 and 0, an empty and a silent partition, a clock set back.

No window closes wrongly, none stays open for ever, and what is late by its own partition's watermark is in the late stream;
live in several sittings, in replays, with any groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.engine.replay import prepare_replay
from headwater.engine.run import RunOptions
from headwater.merge.merge import Merge
from tests.unit.engine.runs import Place

MINUTE = 60_000
BEGIN = 1_600_000_020_000
YEAR = 365 * 86_400_000
YEAR_9999 = 253_402_300_799_000
DRAIN = RunOptions(until_idle=True, drain=True)


def _declare(*, grouped: bool) -> Any:
    def declare(app: hw.App) -> None:
        events = app.topic("events")
        stream = events.group_by("k") if grouped else events.group_by()
        counts = stream.window(hw.windows.Tumbling(60)).aggregate(name="counts", n=hw.agg.count())
        closed, late = app.topic("closed"), app.topic("came_late")

        @app.agent(counts.final())
        async def told(stream: hw.Stream) -> None:
            async for value in stream:
                await closed.send(value=[value["start"], value["n"]])

        @app.agent(counts.late())
        async def behind(stream: hw.Stream) -> None:
            async for value in stream:
                await late.send(value=value["n"])

    return declare


def _append(place: Place, partition: int, times: Sequence[int], first: int = 0) -> None:
    values = [{"k": "k", "n": first + n} for n in range(len(times))]
    place.append("events", values, keys=b"k", times=list(times), partition=partition)


def _closed(place: Place, topic: str = "closed") -> Counter[tuple[int, int]]:
    return Counter(tuple(pair) for p in range(_partitions(place, topic)) for pair in place.values(topic, p))


def _late(place: Place, topic: str = "came_late") -> list[int]:
    return sorted(n for p in range(_partitions(place, topic)) for n in place.values(topic, p))


def _partitions(place: Place, topic: str) -> int:
    info = place.log.topic(topic)
    return 0 if info is None else info.partitions


def _window(time: int) -> int:
    return time - time % MINUTE


CASES: dict[str, tuple[list[list[int]], list[int]]] = {
    # records by partition, and the numbers of those that are late
    "year 9999": (
        [[BEGIN, BEGIN + 1, YEAR_9999, BEGIN + 2, BEGIN + MINUTE, BEGIN + 3 * MINUTE, BEGIN + 3]],
        [6],
    ),
    "year 9999 first": ([[YEAR_9999, BEGIN, BEGIN + 1, BEGIN + MINUTE, BEGIN + 2]], [4]),
    "a jump of a year": ([[BEGIN, BEGIN + 1, *(BEGIN + YEAR + n for n in range(400)), BEGIN + 2]], [402]),
    "no time": ([[-1, BEGIN, 0, BEGIN + 1, -1, BEGIN + 2 * MINUTE, 0]], [2, 4, 6]),
    "a clock set back": ([[BEGIN, BEGIN + 5 * MINUTE, BEGIN + MINUTE, BEGIN + 5 * MINUTE + 1]], [2]),
    "an empty partition": ([[BEGIN, BEGIN + 1, BEGIN + 2 * MINUTE], []], []),
    "one record": ([[BEGIN]], []),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("records_max", [1, 10_000])
def test_odd_times_close_each_window_once_with_all_that_is_not_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, records_max: int
) -> None:
    monkeypatch.setattr(Merge.__init__, "__kwdefaults__", {"records_max": records_max})
    partitions, late = CASES[case]
    grouped = len(partitions) > 1
    place = Place(tmp_path)
    place.topic("events", len(partitions))
    for topic in ("closed", "came_late"):
        place.topic(topic)
    declare = _declare(grouped=grouped)
    half = [len(times) // 2 for times in partitions]
    for partition, times in enumerate(partitions):
        if times[: half[partition]]:
            _append(place, partition, times[: half[partition]])
    place.run(declare, partitions=len(partitions))
    for partition, times in enumerate(partitions):
        if times[half[partition] :]:
            _append(place, partition, times[half[partition] :], half[partition])
    place.run(declare, partitions=len(partitions))
    place.run(declare, options=DRAIN, partitions=len(partitions))
    kept = [_window(time) for times in partitions for n, time in enumerate(times) if n not in late]
    expected = Counter(dict.fromkeys(Counter(kept).items(), 1))
    assert _closed(place) == expected
    assert _late(place) == late
    place.archive_all()
    for order in ("time", "live"):
        app = place.app(declare, partitions=len(partitions))
        made = prepare_replay(
            app, place.log, place.archive, time_from=-(1 << 63), name=f"by-{order}", order=order
        )
        place.run_app(app, RunOptions(generation=made.name))
        assert _closed(place, f"app.by-{order}.out.closed") == expected, order
        assert _late(place, f"app.by-{order}.out.came_late") == late, order
