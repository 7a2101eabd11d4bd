"""Query 8, monitor new users: who signed up and opened an auction in the same 10 s."""

from __future__ import annotations

import headwater as hw

from . import Person, auctions_of, persons_of

app = hw.App("nexmark_q8")

WINDOW_S = 10
WINDOW_MS = 1000 * WINDOW_S


def window_of(person: Person) -> tuple[int, int]:
    """Return the first and the last ms of the 10 s in which a person signed up."""
    start = person.date_time // WINDOW_MS * WINDOW_MS
    return start, start + WINDOW_MS - 1


sellers = persons_of(app).join(
    auctions_of(app),
    on=("id", "seller"),
    within=window_of,
    reach=WINDOW_S,
    name="new_sellers",
    select=lambda person, _: {"id": person.id, "name": person.name, "stime": window_of(person)[0]},
)
sellers.dedupe(("id", "name", "stime"), within=WINDOW_S, name="once").to(app.topic("q8"))
