"""A group_by over partitions of very unequal density: what is behind it waits for the slowest. Options by environment."""

from __future__ import annotations

import os

import headwater as hw

app = hw.App("regroup", ahead=float(os.environ["AHEAD_S"]) if os.environ.get("AHEAD_S") else None)
app_events = app.topic("events", value_type=bytes, partitions=4)
counts = app.Table("counts", default=int, history=None)


def _group(value: bytes) -> bytes:
    return value[:4]


@app.agent(app_events.group_by(_group))
async def count(stream: hw.Stream) -> None:
    """Count by the group that stands in front of the value."""
    async for value in stream:
        counts[value[:4].decode()] += 1
