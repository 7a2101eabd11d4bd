"""Question 1: how many flights does each airline have a day, and how many miles? By days of New York and by days in UTC.

A day of New York has 23 hours in March and 25 in November. Results: the topics `f01_daily_local` and `f01_daily_utc`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import headwater as hw

from . import Departure, iso

app = hw.App("flights_f01")

NEW_YORK = "America/New_York"

by_carrier = app.topic("departures", key_type=str, value_type=Departure).group_by("carrier")


def daily(name: str, zone: str) -> Any:
    """Return each airline's flights and miles by the days of a time zone, once a day is over."""
    days = by_carrier.window(hw.windows.Calendar("day", tz=zone))
    return days.aggregate(name=name, n=hw.agg.count(), distance=hw.agg.sum("distance")).final()


def local_day(window: dict[str, Any]) -> dict[str, Any]:
    """Return a day of New York with its date and bounds."""
    day = datetime.fromtimestamp(window["start"] / 1000, ZoneInfo(NEW_YORK)).date()
    return {
        "day": day.isoformat(),
        "carrier": window["key"],
        "n": window["n"],
        "distance": window["distance"],
        "window_start": iso(window["start"]),
        "window_end": iso(window["end"]),
    }


daily("daily_local", NEW_YORK).map(local_day).to(app.topic("f01_daily_local"))
daily("daily_utc", "UTC").map(
    lambda window: {
        "window_start": iso(window["start"]),
        "carrier": window["key"],
        "n": window["n"],
        "distance": window["distance"],
    }
).to(app.topic("f01_daily_utc"))
