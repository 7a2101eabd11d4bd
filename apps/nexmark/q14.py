"""Query 14, calculation: bids in a range of prices, with the time of day in words and a count of letters."""

from __future__ import annotations

import headwater as hw

from . import Bid, bids_of, hour_of

app = hw.App("nexmark_q14")

EUROS = 0.908


def time_of_day(bid: Bid) -> str:
    """Return the time of day in words, by the hour in UTC."""
    hour = hour_of(bid)
    if 8 <= hour <= 18:
        return "dayTime"
    return "nightTime" if hour <= 6 or hour >= 20 else "otherTime"


bids_of(app).filter(lambda bid: 1_000_000 < EUROS * bid.price < 50_000_000).map(
    lambda bid: {
        "auction": bid.auction,
        "bidder": bid.bidder,
        "price": EUROS * bid.price,
        "bidTimeType": time_of_day(bid),
        "dateTime": bid.date_time,
        "extra": bid.extra,
        "c_counts": bid.extra.count("c"),
    }
).to(app.topic("q14"))
