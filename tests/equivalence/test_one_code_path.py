"""Live and replay differ in the Source that is plugged in, and in nothing else: the same functions run, the same bytes come out.

The same app works the same records from the log alone, from the archive alone, and from the archive handed over to
the log in the middle. A profiler notes each function of the package that runs while it does.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import headwater as hw
from headwater.core.batch import TopicPartition
from headwater.core.partitioner import partition_of
from headwater.engine.options import RunOptions
from headwater.source.handover import HandoverSource
from headwater.source.interface import Source
from headwater.source.live import LiveSource
from headwater.source.replay import ReplaySource
from tests.unit.engine.runs import Place

ROOT = Path(hw.__file__).parent
ORDERS = 400
KEYS = [[key for n in range(40) if partition_of(key := f"u{n}".encode(), 2) == home][:5] for home in range(2)]
"""Five keys at home in each partition."""


def _declare(app: hw.App) -> None:
    """Declare what uses the engine's whole width: two agents in lock step, group_by, take, sinks, sends, dead letters."""
    orders = app.topic("orders", key_type=str)
    totals = app.Table("totals", default=int)
    by_item = app.Table("by_item", default=dict)
    users = app.SetTable("users")
    out = app.topic("out")

    @app.agent(orders, sink=[out])
    async def add(stream: hw.Stream) -> AsyncIterator[Any]:
        async for key, order in stream.items():
            totals[key] += order["amount"]
            if order["amount"] == 13:
                raise ValueError("thirteen")
            yield [order["number"], totals[key], stream.now(), stream.random.random()]

    @app.agent(orders)
    async def note(stream: hw.Stream) -> None:
        async for event in stream.events():
            totals[event.key] += 1
            users[event.key].add(event.value["item"])

    @app.agent(orders.group_by("item"))
    async def items(stream: hw.Stream) -> None:
        async for order in stream:
            # What comes from two partitions at once has no order of its own live; each one's has.
            row, lane = by_item[order["item"]], str(order["number"] % 2)
            row[lane] = row.get(lane, 0) * 31 % 1_000_003 + order["number"]
            by_item[order["item"]] = dict(sorted(row.items()))

    @app.agent(orders)
    async def fives(stream: hw.Stream) -> None:
        async for five in stream.take(5):
            await app.send("fives", key="k", value=[order["number"] for order in five])


def _fill(place: Place) -> None:
    for partition in range(2):
        numbers = range(partition, ORDERS, 2)
        orders = [{"number": n, "amount": n % 50, "item": f"i{n % 7}"} for n in numbers]
        keys: list[bytes | None] = [KEYS[partition][n // 2 % 5] for n in numbers]
        place.append(
            "orders",
            orders,
            keys=keys,
            partition=partition,
            partitions=2,
            times=[1_000 + 10 * n for n in numbers],
        )


class _Profile:
    """Which functions of engine, stream, merge, table and app ran; sources are counted apart."""

    def __init__(self) -> None:
        self.codes: set[CodeType] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self.codes.add(frame.f_code)

    def functions(self, *packages: str) -> set[str]:
        found = set()
        for code in self.codes:
            path = Path(code.co_filename)
            if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in packages:
                found.add(f"{path.relative_to(ROOT)}:{code.co_qualname}")
        return found


@contextmanager
def _profiled() -> Iterator[_Profile]:
    profile = _Profile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield profile
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _results(place: Place) -> dict[str, Any]:
    """Return all that came of a run: tables as bytes; outputs and dead letters with keys, times and headers."""
    found: dict[str, Any] = {name: place.table_bytes(name) for name in ("totals", "by_item", "users")}
    for topic in ("out", "fives", "app.live.dead"):
        info = place.log.topic(topic)
        assert info is not None
        for partition in range(info.partitions):
            batch = place.batch(topic, partition)
            rows = zip(batch.timestamps, batch.keys, batch.values, strict=True)
            # One partition of `fives` and `dead` takes what two tasks write: whose epoch comes first is no result.
            found[f"{topic}/{partition}"] = list(rows) if topic == "out" else sorted(rows, key=repr)
    return found


def _plugged(monkeypatch: pytest.MonkeyPatch, how: str) -> list[str]:
    """Plug a Source in, and return the list that its class's name goes to with each fetch."""
    fetched: list[str] = []

    def make(archive: Any, log: Any, topic: str, partition: int, position: int, **options: Any) -> Source:
        if topic != "orders" or how == "live":
            return LiveSource(log, topic, partition, position)
        if how == "replay":
            return ReplaySource(archive, topic, partition, position, **options)
        return HandoverSource(archive, log, topic, partition, position, **options)

    for cls in (LiveSource, ReplaySource, HandoverSource):
        real = cls.fetch

        def fetch(self: Any, *, _real: Any = real, **options: Any) -> Any:
            if self.topic == "orders":
                fetched.append(type(self).__name__)
            return _real(self, **options)

        monkeypatch.setattr(cls, "fetch", fetch)
    monkeypatch.setattr("headwater.engine.assemble.HandoverSource", make)
    return fetched


def _run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> tuple[dict[str, Any], _Profile, set[str]]:
    place = Place(folder)
    _fill(place)
    if how != "live":
        place.archive_all()
    if how == "handover":
        # Archived up to here and trimmed; the rest is only in the log.
        for partition in range(2):
            tp = TopicPartition("orders", partition)
            place.log.trim(tp.topic, tp.partition, place.log.end_offset(*tp))
        _fill_more(place)
    elif how == "replay":
        _fill_more(place)
        place.archive_all()
    else:
        _fill_more(place)
    with monkeypatch.context() as patch:
        fetched = _plugged(patch, how)
        with _profiled() as profile:
            # Named, so that nothing follows the pointer by the clock.
            options = RunOptions(generation="live", until_idle=True)
            place.run(_declare, options=options, partitions=2, retries=1)
    return _results(place), profile, set(fetched)


def _fill_more(place: Place) -> None:
    for partition in range(2):
        place.append(
            "orders", [{"number": ORDERS + partition, "amount": 1, "item": "last"}], keys=[KEYS[partition][0]],
            partition=partition, times=[1_000_000],
        )  # fmt: skip


def test_nothing_but_source_classes_differs_between_live_and_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: live, replayed and handed over, the same functions ran and every byte of the results is the same."""
    # The first run of a process also loads modules and makes what all share.
    _run(tmp_path / "first", monkeypatch, "live")
    found = {how: _run(tmp_path / how, monkeypatch, how) for how in ("live", "replay", "handover")}
    results, profile, classes = found["live"]
    assert classes == {"LiveSource"}
    assert found["replay"][2] == {"ReplaySource"}
    assert found["handover"][2] == {"HandoverSource", "ReplaySource", "LiveSource"}
    assert len(results["out/0"]) > 100
    assert len(results["totals"]) == 10
    assert any(results["app.live.dead/0"])

    ran = profile.functions("engine", "stream", "merge", "table", "app")
    assert len(ran) > 100
    for how in ("replay", "handover"):
        other_results, other, _ = found[how]
        assert other_results == results
        packages = "engine", "stream", "merge", "table", "app"
        differing = other.functions(*packages) ^ profile.functions(*packages)
        assert {name for name in differing if not name.startswith(_WAITING)} == set()


_WAITING = (
    "engine/session.py:Session._rest",
    "engine/session.py:Session._flush_idle",
    "merge/channel.py:join.<locals>",  # several pieces wait where more was read while the log committed
)
"""Functions that a run may or may not come to, as its threads happen to be timed."""
