"""Query 3, local item suggestion: who sells in category 10 in three states. A join without bound in time."""

from __future__ import annotations

import headwater as hw

from . import auctions_of, persons_of

app = hw.App("nexmark_q3")

auctions = auctions_of(app).filter(lambda auction: auction.category == 10)
persons = persons_of(app).filter(lambda person: person.state in {"or", "id", "ca"})

auctions.join(
    persons,
    on=("seller", "id"),
    name="sellers",
    select=lambda auction, person: {
        "name": person.name,
        "city": person.city,
        "state": person.state,
        "id": auction.id,
    },
).to(app.topic("q3"))
