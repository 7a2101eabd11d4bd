"""Each Nexmark query is SQL's answer: in order and out of order, live, replayed in both orders and handed over."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from tests.equivalence.asked import Asked
from tests.equivalence.world import Given
from tests.truth import nexmark

pytestmark = pytest.mark.timeout(600)

QUERIES = [f"q{number}" for number in range(23)]
TABLES = frozenset({"q4", "q6", "q9", "q15", "q16", "q17", "q18", "q19"})
"""Answers that are kept up to date; the others are topics, with each row once and final."""
STATELESS = frozenset({"q0", "q1", "q2", "q10", "q13", "q14", "q21", "q22"})
PARTITIONS = 4


@cache
def given(in_order: bool) -> list[Given]:
    """Return the events as records, in the order of their arrival."""
    return [
        Given(
            event["key"].encode(),
            json.dumps(nexmark.envelope(event)["value"], separators=(",", ":")).encode(),
            event["ts"],
        )
        for event in nexmark.arrivals(in_order=in_order)
    ]


@pytest.mark.parametrize("query", QUERIES)
def test_in_order_live_and_replayed_in_both_orders(query: str, tmp_path: Path) -> None:
    answer = nexmark.answers()[query]
    asked = Asked(f"apps.nexmark.{query}", tmp_path / "in_order", TABLES)
    asked.send("nexmark", given(True), PARTITIONS)
    asked.world.work(drain=True)
    asked.check(query, answer)
    asked.world.archive()
    asked.world.trim("nexmark")
    for order in ("time", "live"):
        asked.world.replay(f"by_{order}", order=order)
        asked.check(query, answer, f"by_{order}")
    asked.close()


@pytest.mark.parametrize("query", QUERIES)
def test_out_of_order_and_handed_over_at_three_offsets(query: str, tmp_path: Path) -> None:
    """What comes before the cut is only in the archive, what comes after it only in the log."""
    answer = nexmark.answers()[query]
    records = given(False)
    for cut in (1_733,) if query in STATELESS else (1, 1_733, len(records) - 1):
        asked = Asked(f"apps.nexmark.{query}", tmp_path / f"cut{cut}", TABLES)
        asked.send("nexmark", records[:cut], PARTITIONS)
        asked.world.archive()
        asked.world.trim("nexmark")
        asked.send("nexmark", records[cut:], PARTITIONS)
        asked.world.work(drain=True)
        asked.check(query, answer)
        asked.close()
