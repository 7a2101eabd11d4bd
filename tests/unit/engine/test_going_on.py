"""I1, I2, I4, I7: what comes while an epoch is being committed is worked at once, stands on that epoch, and falls with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import headwater as hw
from headwater.core.errors import FencedError, LogInterruptedError
from headwater.table import part as part_module
from tests.unit.engine.runs import Place, at_work, until


class Gate:
    """Holds an engine's commits in the log until it is told to let one go, or to fail it."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came = 0
        self.fails: Callable[[], Exception] | None = None
        self.is_written = True
        self._open = Event()
        self._open.set()
        log = type(place.log)
        commit = log.commit

        def held(own: Any, transaction: Any) -> Any:
            if transaction.member is None:
                return commit(own, transaction)
            self.came += 1
            assert self._open.wait(10)
            fails, self.fails = self.fails, None
            placed = commit(own, transaction) if fails is None or self.is_written else None
            if fails is not None:
                raise fails()
            return placed

        monkeypatch.setattr(log, "commit", held)

    async def close(self) -> None:
        """Hold what comes after a worker's first commit, which says where it begins."""
        await until(lambda: self.came == 1)
        self._open.clear()
        self.came = 0

    def open(self) -> None:
        self._open.set()

    def fail(self, error: Callable[[], Exception], *, written: bool) -> None:
        """Let all go, the first of them with an error; the log may have `written` it all the same."""
        self.fails, self.is_written = error, written
        self._open.set()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.topic("orders")
    return place


def counting(seen: list[int]) -> Callable[[hw.App], None]:
    """Declare an agent that adds up, sends on each sum, and notes what it was given."""

    def declare(app: hw.App) -> None:
        sums = app.Table("sums", default=int)
        out = app.topic("out")

        @app.agent(app.topic("orders", key_type=str, value_type=int), sink=[out])
        async def add(stream: hw.Stream) -> Any:
            async for key, number in stream.items():
                seen.append(number)
                sums[key] += number
                yield sums[key]

    return declare


async def test_records_are_worked_while_the_log_takes_the_last_epoch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, seen = Gate(place, monkeypatch), list[int]()
    app = place.app(counting(seen), epoch_s=0.01)
    async with at_work(place, app) as engine:
        await gate.close()
        place.append("orders", [1], keys=b"k")
        await until(lambda: gate.came == 1)
        place.append("orders", [10, 100], keys=b"k")
        await until(lambda: seen == [1, 10, 100])
        # Nobody outside sees what the log has not taken.
        assert engine.committed(app.declared.tables["sums"]).get("k") is None
        assert place.log.topic("out") is None or len(place.batch("out")) == 0
        await asyncio.sleep(0.05)
        assert gate.came == 1, "one commit at a time"
        gate.open()
        await until(lambda: place.table("sums") == {b"k": 111})
        await until(lambda: engine.committed(app.declared.tables["sums"]).get("k") == 111)
    assert place.values("out") == [1, 11, 111]
    _, first, second = place.commits()
    assert (first.read["orders/0"], second.read["orders/0"]) == (1, 3)


@pytest.mark.parametrize("error", [FencedError, LogInterruptedError])
@pytest.mark.parametrize("written", [False, True], ids=["not written", "written"])
async def test_what_was_worked_since_falls_with_an_epoch_that_failed(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Callable[[str], Exception], written: bool
) -> None:
    """Also where the log has it, and only its answer was lost."""
    gate, seen = Gate(place, monkeypatch), list[int]()
    async with at_work(place, place.app(counting(seen), epoch_s=0.01)) as engine:
        await gate.close()
        place.append("orders", [1], keys=b"k")
        await until(lambda: gate.came == 1)
        place.append("orders", [10, 100], keys=b"k")
        await until(lambda: seen == [1, 10, 100])
        gate.fail(lambda: error("lost"), written=written)
        await until(lambda: place.table("sums") == {b"k": 111})
        assert engine.error is None
    assert place.values("out") == [1, 11, 111]
    assert seen == ([1, 10, 100, 10, 100] if written else [1, 10, 100, 1, 10, 100])


async def test_what_the_next_epoch_reads_is_what_the_last_one_wrote_also_where_nothing_is_cached(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_module, "CACHE_ENTRIES_MAX", 0)
    gate, seen = Gate(place, monkeypatch), list[int]()
    async with at_work(place, place.app(counting(seen), epoch_s=0.01)):
        await gate.close()
        place.append("orders", [1, 2], keys=[b"k", b"j"])
        await until(lambda: gate.came == 1)
        place.append("orders", [10, 20], keys=[b"k", b"j"])
        await until(lambda: seen == [1, 2, 10, 20])
        gate.open()
        await until(lambda: place.table("sums") == {b"k": 11, b"j": 22})
    assert place.values("out") == [1, 2, 11, 22]


async def test_a_stop_waits_for_the_commit_and_commits_what_was_worked_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I26."""
    gate, seen = Gate(place, monkeypatch), list[int]()
    async with at_work(place, place.app(counting(seen), epoch_s=0.01)):
        await gate.close()
        place.append("orders", [1], keys=b"k")
        await until(lambda: gate.came == 1)
        place.append("orders", [10], keys=b"k")
        await until(lambda: seen == [1, 10])
        asyncio.get_running_loop().call_later(0.1, gate.open)
    assert place.table("sums") == {b"k": 11}
    assert place.values("out") == [1, 11]


async def test_an_epoch_that_is_full_waits_for_the_commit_before_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: what is worked while the log is slow is bounded as any epoch."""
    monkeypatch.setattr("headwater.engine.session.CHANGES_MAX", 20)
    gate, seen = Gate(place, monkeypatch), list[int]()
    async with at_work(place, place.app(counting(seen), epoch_s=0.01)):
        await gate.close()
        place.append("orders", [1], keys=b"k")
        await until(lambda: gate.came == 1)
        place.append("orders", [1] * 2_000, keys=b"k")
        await until(lambda: len(seen) > 20)
        await asyncio.sleep(0.3)
        # One group is taken whole.
        assert len(seen) < 200
        gate.open()
        await until(lambda: place.table("sums") == {b"k": 2_001})
    assert place.values("out") == list(range(1, 2_002))
