"""Query 1, currency conversion: every bid with its price in euros."""

from __future__ import annotations

import headwater as hw

from . import bids_of

app = hw.App("nexmark_q1")

EUROS = 0.908

bids_of(app).map(
    lambda bid: {
        "auction": bid.auction,
        "bidder": bid.bidder,
        "price": EUROS * bid.price,
        "dateTime": bid.date_time,
        "extra": bid.extra,
    }
).to(app.topic("q1"))
