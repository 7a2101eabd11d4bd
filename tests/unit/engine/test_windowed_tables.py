"""Tables of windows: rows that operators and agents write and that close with the watermark; and how they are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.core.windowed import Windowed, window_key
from headwater.engine import task as task_module
from headwater.engine.committed import as_of_rows
from headwater.engine.compare import compare
from headwater.engine.control import Control
from headwater.engine.history import dump_table, tables_of
from headwater.merge.merge import Merge
from headwater.stream.frame import CURRENT
from headwater.stream.operator import LATE, OUT, OperatorSpec
from headwater.stream.plan import StreamPlan
from tests.unit.engine.runs import Place
from tests.unit.engine.small_operators import Count, Keeper, Windows, WindowTable, spec


def by_operator(app: hw.App) -> None:
    app.topic("orders")
    WindowTable(app, "hits")
    app.declared.add_operator(
        spec("hits", lambda: Windows("hits"), "orders", tables=("hits",), sinks=("closed",))
    )


def by_agent(app: hw.App) -> None:
    orders = app.topic("orders")
    table = WindowTable(app, "hits")
    app.declared.add_operator(OperatorSpec("hits", (), lambda: Keeper("hits"), tables=("hits",)))
    closed = app.topic("closed")

    @app.agent(hw.Stream(app, StreamPlan((OUT + "hits",))), sink=[closed])
    async def pass_on(stream: Any) -> Any:
        async for value in stream:
            yield value

    @app.agent(orders)
    async def count(stream: Any) -> None:
        async for event in stream.events():
            frame: Any = CURRENT.get()
            part = table._part(frame)
            start = event.timestamp_ms // 100 * 100
            before = frame.rows.task_watermarks[frame.row - 1] if frame.row else part.keeper.context.watermark
            if start + 100 <= max(frame.rows.watermarks[frame.row], before):
                part.keeper.context.late()
                continue
            name = window_key(event.raw_key, start, start + 100)
            row = part.find(name)
            part.put(name, Windowed(1 if row is None else row.value + 1, False), frame)
            if row is None:
                part.keeper.waiting.append((start + 100, name))
                part.keeper.waiting.sort()


TIMES = [110, 150, 199, 130, 205, 120, 260, 305, 290, 400]
KEYS = [b"x", b"x", b"y", b"x", b"x", b"x", b"y", b"y", b"y", b"x"]


def dump(place: Place, generation: str = "live", **how: Any) -> list[dict[str, Any]]:
    found = Control(place.log, place.archive, "app").generation(generation)
    return [json.loads(line) for line in dump_table(place.log, place.archive, "app", found, "hits", **how)]


def row(key: str, start: int, value: int, *, final: bool = True) -> dict[str, Any]:
    return {"key": key, "start": start, "end": start + 100, "final": final, "value": value}


@pytest.mark.parametrize("declare", [by_operator, by_agent])
@pytest.mark.parametrize("group", [1, 4, 10_000])
def test_windows_close_with_the_watermark_whatever_the_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declare: Any, group: int
) -> None:
    monkeypatch.setattr(Merge.__init__, "__kwdefaults__", {"records_max": group})
    monkeypatch.setattr(task_module, "GROUP_RECORDS_FIRST", group)
    place = Place(tmp_path)
    place.append("orders", ["v"] * len(TIMES), keys=KEYS, times=TIMES)
    place.run(declare)
    # 120 came when its partition had seen 205, 290 when it had seen 305: too late.
    expected = [row("x", 100, 3), row("x", 200, 1), row("x", 400, 1, final=False), row("y", 100, 1), row("y", 200, 1),
                row("y", 300, 1)]  # fmt: skip
    assert dump(place) == expected
    assert [value["n"] for value in place.values("closed")] == [3, 1, 1, 1, 1]
    assert place.batch("app.live.late.hits").timestamps == [120, 290]
    # As of an instant, a window is closed from the record on that moved the watermark past its end.
    assert dump(place, as_of=199) == [row("x", 100, 3, final=False), row("y", 100, 1, final=False)]
    assert dump(place, as_of=205) == [row("x", 100, 3), row("x", 200, 1, final=False), row("y", 100, 1)]


def test_windows_come_back_after_a_restart_and_close_then(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.append("orders", ["v"] * 4, keys=KEYS[:4], times=TIMES[:4])
    place.run(by_operator)
    place.append("orders", ["v"] * 6, keys=KEYS[4:], times=TIMES[4:])
    place.run(by_operator)
    assert [value["n"] for value in place.values("closed")] == [3, 1, 1, 1, 1]


def test_they_are_shown_with_their_windows_and_states_are_not_shown(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        by_operator(app)
        app.declared.add_operator(spec("count", Count, LATE + "hits", states=("counts",), sinks=("late",)))

    place.append("orders", ["v"] * len(TIMES), keys=KEYS, times=TIMES)
    app = place.run(declare)
    live = Control(place.log, place.archive, "app").generation("live")
    assert tables_of(place.log, place.archive, "app", live) == ["hits"]
    lines = list(dump_table(place.log, place.archive, "app", live, "hits"))
    assert lines[0] == '{"key":"x","start":100,"end":200,"final":true,"value":3}'
    raw = list(dump_table(place.log, place.archive, "app", live, "hits", raw=True))
    assert raw[0] == '{"key_b64":"eA==","start":100,"end":200,"final":true,"value_b64":"Mw=="}'
    rows = as_of_rows(place.log, place.archive, "app", live, app.tables["hits"], 205)
    assert rows == {("x", 100, 200): 3, ("x", 200, 300): 1, ("y", 100, 200): 1}
    assert not compare(place.log, place.archive, "app", live, live).differs
