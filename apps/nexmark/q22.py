"""Query 22, get url directories: the three parts of a bid's url that follow the host."""

from __future__ import annotations

from typing import Any

import headwater as hw

from . import Bid, bids_of

app = hw.App("nexmark_q22")


def directories(bid: Bid) -> dict[str, Any]:
    """Return a bid with its url's directories; a part that is not there is empty text."""
    parts = [*bid.url.split("/"), "", "", "", "", "", ""]
    return {
        "auction": bid.auction,
        "bidder": bid.bidder,
        "price": bid.price,
        "channel": bid.channel,
        "dir1": parts[3],
        "dir2": parts[4],
        "dir3": parts[5],
    }


bids_of(app).map(directories).to(app.topic("q22"))
