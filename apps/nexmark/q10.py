"""Query 10, log to a file system: every bid with the day and minute that partition it.

The files are the archive's: `headwater archive run` writes the topic as Parquet.
"""

from __future__ import annotations

import headwater as hw

from . import bids_of, day_of, minute_of

app = hw.App("nexmark_q10")

bids_of(app).map(
    lambda bid: {
        "auction": bid.auction,
        "bidder": bid.bidder,
        "price": bid.price,
        "dateTime": bid.date_time,
        "extra": bid.extra,
        "dt": day_of(bid),
        "hm": minute_of(bid),
    }
).to(app.topic("q10"))
