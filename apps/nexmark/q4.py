"""Query 4, average price for a category: the mean of its auctions' winning bids, as a table that is kept up to date."""

from __future__ import annotations

import headwater as hw

from .winning import winning_bids

app = hw.App("nexmark_q4")

q4 = (
    winning_bids(app, "winning")
    .group_by("category")
    .aggregate(name="q4", id=hw.agg.max("category"), final=hw.agg.mean("price"))
)
