"""Query 20, expand bid with auction: every bid on an auction of category 10, with the auction. A join without bound."""

from __future__ import annotations

import headwater as hw

from . import auctions_of, bids_of

app = hw.App("nexmark_q20")

auctions = auctions_of(app).filter(lambda auction: auction.category == 10)

# Auctions and their bids have one key, so they meet where they are.
bids_of(app).join(
    auctions,
    name="expanded",
    select=lambda bid, auction: {
        "auction": bid.auction,
        "bidder": bid.bidder,
        "price": bid.price,
        "channel": bid.channel,
        "url": bid.url,
        "bid_dateTime": bid.date_time,
        "bid_extra": bid.extra,
        "itemName": auction.item_name,
        "description": auction.description,
        "initialBid": auction.initial_bid,
        "reserve": auction.reserve,
        "auction_dateTime": auction.date_time,
        "expires": auction.expires,
        "seller": auction.seller,
        "category": auction.category,
        "auction_extra": auction.extra,
    },
).to(app.topic("q20"))
