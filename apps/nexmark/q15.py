"""Query 15, bidding statistics: bids, bidders and auctions of each day, in all and by rank of price, as a table."""

from __future__ import annotations

import headwater as hw

from . import bid_statistics, bids_of, day_of

app = hw.App("nexmark_q15")

q15 = bids_of(app).group_by(day_of).aggregate(name="q15", day=hw.agg.first(day_of), **bid_statistics())
