"""Query 17, auction statistics: the bids on each auction by day: how many, by rank, and their prices, as a table."""

from __future__ import annotations

import headwater as hw

from . import bids_of, day_of

app = hw.App("nexmark_q17")

q17 = (
    bids_of(app)
    .group_by(("auction", day_of))
    .aggregate(
        name="q17",
        auction=hw.agg.first("auction"),
        day=hw.agg.first(day_of),
        total_bids=hw.agg.count(),
        rank1_bids=hw.agg.count(where=lambda bid: bid.price < 10_000),
        rank2_bids=hw.agg.count(where=lambda bid: 10_000 <= bid.price < 1_000_000),
        rank3_bids=hw.agg.count(where=lambda bid: bid.price >= 1_000_000),
        min_price=hw.agg.min("price"),
        max_price=hw.agg.max("price"),
        avg_price=hw.agg.mean("price"),
        sum_price=hw.agg.sum("price"),
    )
)
