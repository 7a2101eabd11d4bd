"""Question 9, without waiting for the last: the watermark is an hour behind, and what comes later is dropped, and told.

Results: the table `f09_hourly_dropping` (what each hour kept, and what it dropped) and the topic `f09_late_records`.
Which records are late hangs on the partition they are in: the figures that SQL gives are those of one partition.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import headwater as hw

from . import Departure, iso

app = hw.App("flights_f09_dropping")

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000


class Numbered(hw.Record):
    """A departure with its offset, and the watermark when it came."""

    flight_id: str
    origin: str
    sched_dep_ms: int
    offset: int
    watermark_ms: int


departures = app.topic("departures_late", key_type=str, value_type=Departure, lateness=HOUR)
numbered = app.topic("departures_numbered", value_type=Numbered, lateness=HOUR, partitions=1)


@app.agent(departures, sink=[numbered])
async def number(stream: hw.Stream) -> AsyncIterator[Numbered]:
    """Note where each record stands. One that is late does not move the watermark, so this is the one it met."""
    async for event in stream.events():
        flight = event.value
        yield Numbered(flight.flight_id, flight.origin, event.timestamp_ms, event.offset, stream.watermark)


hourly = (
    numbered.group_by("origin")
    .window(hw.windows.Tumbling(HOUR))
    .aggregate(name="hourly", n=hw.agg.count(), keep=False)
)


def hour_of(flight: Numbered) -> int:
    """Return the start of a flight's hour in ms."""
    return flight.sched_dep_ms // HOUR_MS * HOUR_MS


hourly.late().map(
    lambda flight: {
        "offset": flight.offset,
        "flight_id": flight.flight_id,
        "timestamp": iso(flight.sched_dep_ms),
        "window_end": iso(hour_of(flight) + HOUR_MS),
        "watermark": iso(flight.watermark_ms),
    }
).to(app.topic("f09_late_records"))

f09_hourly_dropping = app.Table("f09_hourly_dropping")


@app.agent(hourly.final().group_by(("key", "start")))
async def keep(stream: hw.Stream) -> None:
    """Note what an hour kept, once it is over."""
    async for window in stream:
        origin, start = window["key"], window["start"]
        row = f09_hourly_dropping.get((origin, start)) or empty(origin, start)
        f09_hourly_dropping[origin, start] = {**row, "n": window["n"]}


@app.agent(hourly.late().group_by(("origin", hour_of)))
async def drop(stream: hw.Stream) -> None:
    """Count what came after an hour was over."""
    async for flight in stream:
        origin, start = flight.origin, hour_of(flight)
        row = f09_hourly_dropping.get((origin, start)) or empty(origin, start)
        f09_hourly_dropping[origin, start] = {**row, "late": row["late"] + 1}


def empty(origin: str, start: int) -> dict[str, Any]:
    """Return an hour that kept nothing and dropped nothing."""
    return {"origin": origin, "window_start": iso(start), "n": 0, "late": 0}
