"""Query 11, user sessions: a bidder's bids until 10 s pass without one; a gap of exactly 10 s still belongs to it."""

from __future__ import annotations

import headwater as hw

from . import bids_of

app = hw.App("nexmark_q11")

sessions = (
    bids_of(app)
    .group_by("bidder", key_type=int)
    .window(hw.windows.Session(10))
    .aggregate(name="sessions", bid_count=hw.agg.count(), keep=False)
)
sessions.final().map(
    lambda session: {
        "bidder": session["key"],
        "bid_count": session["bid_count"],
        "starttime": session["start"],
        "endtime": session["end"],
    }
).to(app.topic("q11"))
