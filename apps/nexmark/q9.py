"""Query 9, winning bids: each auction with its highest bid so far, as a table."""

from __future__ import annotations

import headwater as hw

from .winning import winning_bids

app = hw.App("nexmark_q9")

q9 = winning_bids(app, "q9")
