"""Query 16, channel statistics: as query 15, by channel and day, with the latest minute."""

from __future__ import annotations

import headwater as hw

from . import bid_statistics, bids_of, day_of, minute_of

app = hw.App("nexmark_q16")

q16 = (
    bids_of(app)
    .group_by(("channel", day_of))
    .aggregate(
        name="q16",
        channel=hw.agg.first("channel"),
        day=hw.agg.first(day_of),
        minute=hw.agg.max(minute_of),
        **bid_statistics(),
    )
)
