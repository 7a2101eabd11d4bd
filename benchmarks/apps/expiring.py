"""Counts by key and minute in a table whose closed windows leave after ten minutes of event time."""

from __future__ import annotations

from datetime import timedelta

import headwater as hw

app = hw.App("expiring")

minutes = (
    app.topic("events", value_type=int, partitions=1)
    .stream()
    .window(hw.windows.Tumbling(timedelta(minutes=1)))
    .aggregate(name="minutes", n=hw.agg.count(), expires=timedelta(minutes=10), history=None)
)
