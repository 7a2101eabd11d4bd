"""Query 21, add channel id: from the channel's name, or from the url; bids without one are left out."""

from __future__ import annotations

import re

import headwater as hw

from . import Bid, bids_of

app = hw.App("nexmark_q21")

KNOWN = {"apple": "0", "google": "1", "facebook": "2", "baidu": "3"}
IN_URL = re.compile(r"(?:&|^)channel_id=([^&]*)")


def channel_id(bid: Bid) -> str | None:
    """Return a bid's channel id, or None where nothing gives one."""
    known = KNOWN.get(bid.channel.lower())
    if known is not None:
        return known
    found = IN_URL.search(bid.url)
    return found[1] or None if found else None


bids_of(app).filter(channel_id).map(
    lambda bid: {
        "auction": bid.auction,
        "bidder": bid.bidder,
        "price": bid.price,
        "channel": bid.channel,
        "channel_id": channel_id(bid),
    }
).to(app.topic("q21"))
