"""Query 12, a bidder's bids in each 10 s: by event time, where Nexmark takes the wall clock, which no history can give."""

from __future__ import annotations

import headwater as hw

from . import bids_of

app = hw.App("nexmark_q12")

counts = (
    bids_of(app)
    .group_by("bidder", key_type=int)
    .window(hw.windows.Tumbling(10))
    .aggregate(name="counts", bid_count=hw.agg.count(), keep=False)
)
counts.final().map(
    lambda window: {
        "bidder": window["key"],
        "bid_count": window["bid_count"],
        "starttime": window["start"],
        "endtime": window["end"],
    }
).to(app.topic("q12"))
