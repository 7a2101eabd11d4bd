"""Query 19, auction top 10: the ten highest bids on each auction with their rank, as a table."""

from __future__ import annotations

import headwater as hw

from . import bids_of, whole_bid

app = hw.App("nexmark_q19")

q19 = (
    bids_of(app)
    .map(whole_bid)
    .group_by()  # bids are keyed by auction
    .top(10, by="price", ties=("dateTime", "eid"), rank="rank_number", name="q19")
)
