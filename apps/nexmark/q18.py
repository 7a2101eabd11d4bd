"""Query 18, find last bid: each bidder's last on each auction, by event time, as a table."""

from __future__ import annotations

import headwater as hw

from . import bids_of, whole_bid

app = hw.App("nexmark_q18")

q18 = (
    bids_of(app)
    .map(whole_bid)
    .group_by(("bidder", "auction"))
    .top(1, by="dateTime", ties=lambda bid: -bid["eid"], name="q18")
)
