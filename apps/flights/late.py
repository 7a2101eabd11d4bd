"""The same departures with the planned time as their event time: really out of order, as late data is.

A table keeps the last value by offset, not by event time: what a partition holds is never reordered.
"""

from __future__ import annotations

import headwater as hw

from . import Departure

app = hw.App("flights_late")

departures_late = app.topic("departures_late", key_type=str, value_type=Departure)
late_last = app.Table("late_last", key_type=str, value_type=Departure)


@app.agent(departures_late)
async def keep_last(stream: hw.Stream) -> None:
    """Keep each plane's last departure, in the order of offsets."""
    async for flight in stream:
        late_last[flight.tailnum] = flight
