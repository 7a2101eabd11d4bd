"""Question 11: each flight once, where a topic repeats some: for ever, and by the hour.

Results: the topics `f11_dedupe` (a flight is never seen twice) and `f11_dedupe_1h` (a repeat counts within an hour of
the last one that was kept, so what is remembered stays small).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import headwater as hw

from . import iso

app = hw.App("flights_f11")


class Copy(hw.Record):
    """A planned flight, or a repeat of it. Keyed by flight."""

    flight_id: str
    carrier: str
    copy: int


repeated = app.topic("flights_dup", key_type=str, value_type=Copy).stream()


@app.agent(repeated.dedupe(name="ever"), sink=[app.topic("f11_dedupe")])
async def once(stream: hw.Stream) -> AsyncIterator[dict[str, Any]]:
    """Give each flight once."""
    async for event in stream.events():
        yield {"key": event.key, "timestamp": iso(event.timestamp_ms), "carrier": event.value.carrier}


@app.agent(repeated.dedupe(within=timedelta(hours=1), name="hourly"), sink=[app.topic("f11_dedupe_1h")])
async def once_an_hour(stream: hw.Stream) -> AsyncIterator[dict[str, Any]]:
    """Give each flight once an hour."""
    async for event in stream.events():
        yield {"key": event.key, "timestamp": iso(event.timestamp_ms), "copy": event.value.copy}
