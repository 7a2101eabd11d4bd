"""Query 0, pass-through: every bid as it is."""

from __future__ import annotations

import headwater as hw

from . import bids_of

app = hw.App("nexmark_q0")

bids_of(app).map(
    lambda bid: {
        "auction": bid.auction,
        "bidder": bid.bidder,
        "price": bid.price,
        "dateTime": bid.date_time,
        "extra": bid.extra,
    }
).to(app.topic("q0"))
