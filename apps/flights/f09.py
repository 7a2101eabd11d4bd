"""Question 9: how many flights were to leave each airport in each hour? From departures that come out of order, by plan.

A flight comes when it leaves, so as late as its delay: nothing is late by more than a day, and nothing is dropped.
Result: the topic `f09_hourly_final`.
"""

from __future__ import annotations

from datetime import timedelta

import headwater as hw

from . import Departure, iso

app = hw.App("flights_f09")

hourly = (
    app.topic("departures_late", key_type=str, value_type=Departure, lateness=timedelta(days=1))
    .group_by("origin")
    .window(hw.windows.Tumbling(timedelta(hours=1)))
    .aggregate(name="hourly", n=hw.agg.count())
)
hourly.final().map(
    lambda window: {"origin": window["key"], "window_start": iso(window["start"]), "n": window["n"]}
).to(app.topic("f09_hourly_final"))
