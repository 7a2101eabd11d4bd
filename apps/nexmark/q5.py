"""Query 5, hot items: the auctions with most bids in the last 10 s, every 2 s, all of them where several are equal."""

from __future__ import annotations

import headwater as hw

from . import bids_of

app = hw.App("nexmark_q5")

counts = (
    bids_of(app)
    .group_by("auction", key_type=int)
    .window(hw.windows.Hopping(10, 2))
    .aggregate(name="counts", num=hw.agg.count(), keep=False)
)
hottest = (
    counts.final()
    .group_by("end")
    .window(hw.windows.Tumbling(2))  # a count's event time is its window's last ms
    .top(1, by="num", ties="key", keep_ties=True, name="hottest", keep=False)
)
hottest.final().map(
    lambda item: {
        "auction": item["key"],
        "num": item["num"],
        "starttime": item["start"],
        "endtime": item["end"],
    }
).to(app.topic("q5"))
