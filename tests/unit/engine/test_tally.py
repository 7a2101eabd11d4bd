"""What a worker's log tells of dead letters and late records (I22: late records are counted)."""

from __future__ import annotations

from pathlib import Path

import pytest

import headwater as hw
from headwater.core.batch import Append
from headwater.core.clock import ManualClock
from headwater.core.header import MARK
from headwater.engine.tally import TELL_S, Tally
from tests.unit.engine.runs import Place


def _append(topic: str, count: int) -> Append:
    return Append(topic, 0, [0] * count, [None] * count, [b"1"] * count)


def test_the_first_are_told_at_once_and_later_ones_together(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    tally = Tally("app", clock=clock)
    tally.add([_append("app.live.dead", 2), _append("orders", 5), _append("other.live.dead", 5)])
    assert [r.getMessage() for r in caplog.records] == [
        "2 dead letters more in app.live.dead, 2 since the start; `headwater dead ls` shows them"
    ]
    caplog.clear()
    tally.add([_append("app.live.dead", 3)])
    clock.advance(TELL_S - 1)
    tally.add([_append("app.live.dead", 1)])
    assert caplog.records == []
    clock.advance(1)
    tally.add([])
    assert [r.getMessage() for r in caplog.records] == [
        "4 dead letters more in app.live.dead, 6 since the start; `headwater dead ls` shows them"
    ]
    tally.tell()
    assert len(caplog.records) == 1


def test_marks_are_no_late_records(caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally("app")
    tally.add([Append("app.live.late.counts", 0, [0], [None], [None], [((MARK, b"{}"),)])])
    assert tally.total == {}
    assert caplog.records == []


@pytest.mark.parametrize("is_read", [False, True])
def test_a_worker_tells_how_many_records_were_late(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_read: bool
) -> None:
    """I22: told whether an agent reads them or not, and each once."""

    def declare(app: hw.App) -> None:
        counts = (
            app.topic("t")
            .group_by()
            .window(hw.windows.Tumbling(1))
            .aggregate(name="counts", n=hw.agg.count())
        )
        if is_read:
            counts.late().to("left")

    place = Place(tmp_path)
    place.append("t", [{"n": n} for n in range(4)], times=[1000, 9000, 1500, 1700], keys=b"k")
    place.run(declare)
    told = [r.getMessage() for r in caplog.records if "late records" in r.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("2 late records more in ")
    assert ".late.counts, 2 since the start; `headwater read " in told[0]
