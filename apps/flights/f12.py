"""Question 12: how many flights of each airline are scheduled, how many have departed, at any instant?

A status that is corrected leaves its old group; a cancelled flight leaves altogether. Result: the table
`f12_open_flights`, asked as of any time: `headwater table dump f12_open_flights --as-of 2013-07-04T16:00:00Z`.
"""

from __future__ import annotations

import headwater as hw

from . import FlightStatus

# As of an instant is as of a task's clock: partitions that lag are waited for, so that none is missing then.
app = hw.App("flights_f12", align_s=5.0)

status = app.topic("flight_status", key_type=str, value_type=FlightStatus).stream().table("status")

f12_open_flights = status.group_by(("carrier", "status")).aggregate(
    name="f12_open_flights",
    carrier=hw.agg.max("carrier"),
    status=hw.agg.max("status"),
    n=hw.agg.count(),
)
