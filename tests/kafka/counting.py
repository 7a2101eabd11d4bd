"""A small app for tests on brokers: counts and adds up by key, and sends each sum on; its topics are named after it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import headwater as hw

NAME = "HEADWATER_TEST_COUNTING"


def counting(name: str, **options: Any) -> hw.App:
    """Return the app made anew."""
    made = hw.App(name, **{"lease_s": float(os.environ.get("HEADWATER_TEST_LEASE", "6")), **options})
    numbers = made.topic(f"{name}-in", key_type=str, value_type=int)
    sums = made.topic(f"{name}-out", value_type=dict)
    totals = made.Table("totals", value_type=dict)

    @made.agent(numbers, sink=[sums])
    async def add(stream: hw.Stream) -> AsyncIterator[dict[str, Any]]:
        async for key, number in stream.items():
            row = totals.get(key) or {"n": 0, "sum": 0}
            totals[key] = row = {"n": row["n"] + 1, "sum": row["sum"] + number}
            yield {"key": key, "number": number, **row}

    return made


app = counting(os.environ.get(NAME, "counting"))
