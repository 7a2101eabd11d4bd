"""Query 13, bounded side input: every bid with what a fixed list says about its auction."""

from __future__ import annotations

import headwater as hw

from . import bids_of

app = hw.App("nexmark_q13")

SIDE_INPUT = {key: str(key) for key in range(10_000)}

bids_of(app).map(
    lambda bid: {
        "auction": bid.auction,
        "bidder": bid.bidder,
        "price": bid.price,
        "dateTime": bid.date_time,
        "value": SIDE_INPUT[bid.auction % 10_000],
    }
).to(app.topic("q13"))
