"""The guide's Python runs: each page's blocks one after the other, on an app with the streams and tables they speak of."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from tests.docs.tree import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "docs" / "guide" / f"{name}.md" for name in ("event-time", "windows", "joins", "operators")]
WITH_TABLES = {"windows.md": ("status",), "joins.md": ("people", "pets", "orders", "customers", "weather")}
WITH_STREAMS = {
    "windows.md": ("clicks",),
    "joins.md": ("views", "clicks", "auctions", "departures", "flights"),
}


class Bid(hw.Record):
    auction: int
    bidder: int
    price: int
    when: int


def names(page: Path) -> dict[str, Any]:
    """Return what a page's blocks speak of and don't declare."""
    app = hw.App("guide")
    found: dict[str, Any] = {"hw": hw, "timedelta": timedelta, "app": app, "Bid": Bid}
    found["bids"] = app.topic("bids", value_type=Bid)
    for name in WITH_STREAMS.get(page.name, ()):
        found[name] = app.topic(name).stream()
    for name in WITH_TABLES.get(page.name, ()):
        found[name] = app.topic(name).stream().table(name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_pages_python_runs_and_declares_operators(page: Path) -> None:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks
    known = names(page)
    # Tables that joins look up are declared where the page speaks of them, or ahead of it.
    if page.name == "joins.md":
        blocks.sort(key=lambda block: "GlobalTable" not in block and ".table(" not in block)
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page.name}, block {number}", "exec"), known)
    declared = known["app"].declared
    assert declared.operators or page.name == "event-time.md"
