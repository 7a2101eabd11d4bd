"""Query 2, selection: the bids on some auctions."""

from __future__ import annotations

import headwater as hw

from . import bids_of

app = hw.App("nexmark_q2")

some = bids_of(app).filter(lambda bid: bid.auction % 123 == 0)
some.map(lambda bid: {"auction": bid.auction, "price": bid.price}).to(app.topic("q2"))
