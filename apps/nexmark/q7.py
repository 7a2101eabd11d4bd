"""Query 7, highest bid: the highest of each 10 s, all of them where several are equal.

As in Nexmark's SQL, a bid at the very end of the 10 s counts too where it is as high.
"""

from __future__ import annotations

from datetime import timedelta

import headwater as hw

from . import bids_of

app = hw.App("nexmark_q7")

WINDOW_MS = 10_000

bids = bids_of(app)
highest = (
    bids.group_by(lambda bid: bid.date_time // WINDOW_MS)
    .window(hw.windows.Tumbling(timedelta(milliseconds=WINDOW_MS)))
    .aggregate(name="highest", maxprice=hw.agg.max("price"), keep=False)
)
bids.join(
    highest.final(),
    on=("price", "maxprice"),
    # A window's result has the time of its last ms: from 1 ms before a bid to just short of 10 s after it.
    within=(timedelta(milliseconds=1), timedelta(milliseconds=WINDOW_MS - 1)),
    name="highest_bids",
    select=lambda bid, _: {
        "auction": bid.auction,
        "price": bid.price,
        "bidder": bid.bidder,
        "dateTime": bid.date_time,
        "extra": bid.extra,
    },
).to(app.topic("q7"))
