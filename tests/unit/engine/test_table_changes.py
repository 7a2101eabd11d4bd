"""A table's changes as a stream: old and new value of each, in order, in the epoch that made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.stream.operator import CHANGES
from headwater.stream.plan import StreamPlan
from tests.unit.engine.runs import Place, killed_at
from tests.unit.engine.test_windowed_tables import KEYS, TIMES, by_operator


def copy_changes(app: hw.App, table: str) -> None:
    """Send the changes of a table to a topic as they come."""
    copies = app.topic("copies")

    @app.agent(hw.Stream(app, StreamPlan((CHANGES + table,))), sink=[copies])
    async def copy(stream: Any) -> Any:
        async for value in stream:
            yield value


def summed(app: hw.App) -> None:
    orders = app.topic("orders")
    sums = app.Table("sums", default=int)
    copy_changes(app, "sums")

    @app.agent(orders, retries=1)
    async def add(stream: Any) -> None:
        async for event in stream.events():
            if event.value is None:
                sums.pop(event.key, None)
                continue
            sums[event.key] += event.value["n"]
            if event.value.get("kind") == "fail":
                raise RuntimeError("told to fail")


def change(key: str, old: int | None, new: int | None) -> dict[str, Any]:
    return {"key": key, "old": old, "new": new}


def test_each_change_has_what_it_replaced(tmp_path: Path) -> None:
    place = Place(tmp_path)
    values = [{"n": 1}, {"n": 2}, {"n": 5, "kind": "fail"}, {"n": 0}, None, None, {"n": 7}]
    place.append("orders", values, keys=[b"x", b"x", b"x", b"x", b"x", b"x", b"y"])
    place.run(summed)
    # Neither what a failing record did, nor a row set to what it was, nor the deletion of a row that isn't there.
    assert place.values("copies") == [
        change("x", None, 1), change("x", 1, 3), change("x", 3, None), change("y", None, 7),
    ]  # fmt: skip
    place.append("orders", [{"n": 1}], keys=b"y")
    place.run(summed)
    assert place.values("copies")[4:] == [change("y", 7, 8)]
    assert place.batch("copies").keys[-1] == b"y"


@pytest.mark.parametrize("at", ["epoch.before_log", "epoch.between_log_and_store", "epoch.store_moved"])
def test_a_crash_neither_loses_nor_doubles_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    place = Place(tmp_path)
    place.append("orders", [{"n": 1}, {"n": 2}], keys=b"x")
    with killed_at(monkeypatch, at):
        place.run(summed)
    place.append("orders", [{"n": 3}], keys=b"x")
    place.run(summed)
    assert place.values("copies") == [change("x", None, 1), change("x", 1, 3), change("x", 3, 6)]


def test_the_changes_of_windows_name_them_and_their_closing_is_none(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        by_operator(app)
        copy_changes(app, "hits")

    place.append("orders", ["v"] * len(TIMES), keys=KEYS, times=TIMES)
    place.run(declare)
    found = place.values("copies")
    assert found[:3] == [
        {"key": "x", "start": 100, "end": 200, "old": None, "new": 1},
        {"key": "x", "start": 100, "end": 200, "old": 1, "new": 2},
        {"key": "y", "start": 100, "end": 200, "old": None, "new": 1},
    ]
    assert len(found) == len(TIMES) - 2, "one for each record that wasn't late"
