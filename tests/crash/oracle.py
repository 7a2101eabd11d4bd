"""What the crash tests' app must give, by plain loops over its input; knows nothing of the package under test.

`upto` cuts the input: for each reader, by lane, the first offset that it has not finished. A state of the log after a
kill must be exactly the oracle's answer for the positions found in it: one cut of everything, no more and no less.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Upto = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class Given:
    """One input record: where it was appended, and its bytes."""

    lane: int
    offset: int
    key: bytes
    value: bytes


@dataclass(slots=True)
class Expected:
    """What must be there: outputs by topic and key in order, rows by table, dead letters as a multiset."""

    outputs: dict[str, dict[bytes, list[Any]]] = field(
        default_factory=lambda: {"receipts": {}, "bundles": {}}
    )
    tables: dict[str, dict[str, Any]] = field(default_factory=lambda: {"spent": {}, "sold": {}})
    dead: Counter[tuple[str, int, int, str, bytes, bytes]] = field(default_factory=Counter)


def expect(given: Sequence[Given], upto: Upto | None = None) -> Expected:
    """Return what the app must have given once it has finished the input, or the cut `upto` of it.

    A reader that `upto` doesn't name has finished everything. `sold` is told only for the whole input.
    """
    expected = Expected()
    held: dict[int, list[tuple[bytes, int]]] = {}
    for record in sorted(given, key=lambda g: (g.lane, g.offset)):
        try:
            order = json.loads(record.value)
        except ValueError:
            if _done("decode", record, upto):
                expected.dead["orders", record.lane, record.offset, "decode", record.key, record.value] += 1
            continue
        if _done("bill", record, upto):
            _bill(expected, record, order)
        _count(expected, order)
        # The cut of `bundle` is where the records it holds begin, so all below it are in whole bundles.
        if _done("bundle", record, upto):
            five = held.setdefault(record.lane, [])
            five.append((record.key, order["number"]))
            if len(five) == 5:
                bundle = {"numbers": [number for _, number in five]}
                expected.outputs["bundles"].setdefault(record.key, []).append(bundle)
                five.clear()
    return expected


def _done(reader: str, record: Given, upto: Upto | None) -> bool:
    if upto is None:
        return True
    return record.offset < upto.get(reader, {}).get(record.lane, 0)


def _bill(expected: Expected, record: Given, order: dict[str, Any]) -> None:
    number = order["number"]
    if number % 17 == 5:
        expected.dead["orders", record.lane, record.offset, "bill", record.key, record.value] += 1
        return
    rows = expected.tables["spent"]
    row = rows.get(order["user"], {"n": 0, "amount": 0, "chain": 0})
    row = {
        "n": row["n"] + 1,
        "amount": row["amount"] + order["amount"],
        "chain": (row["chain"] * 31 + number) % 1_000_003,
    }
    rows[order["user"]] = row
    if number % 23 == 0:
        del rows[order["user"]]
    expected.outputs["receipts"].setdefault(record.key, []).append({"number": number, "row": row})


def _count(expected: Expected, order: dict[str, Any]) -> None:
    rows = expected.tables["sold"]
    row = rows.setdefault(order["item"], {"n": 0, "amount": 0, "chains": {}})
    lane = str(order["lane"])
    row["n"] += 1
    row["amount"] += order["amount"]
    row["chains"][lane] = (row["chains"].get(lane, 0) * 31 + order["number"]) % 1_000_003


def make_input(
    start: int, count: int, lane_of: Callable[[bytes], int], offsets: dict[int, int], *, bytes_each: int
) -> list[Given]:
    """Return `count` orders numbered from `start`, some of which are no orders; `offsets` are moved on."""
    given = []
    for number in range(start, start + count):
        user = f"user-{number * 7 % 11}"
        key = user.encode()
        lane = lane_of(key)
        order = {
            "number": number, "lane": lane, "user": user, "item": f"item-{number * 5 % 7}",
            "amount": number * 13 % 101, "padding": "x" * bytes_each,
        }  # fmt: skip
        value = b"no order: \xff" if number % 29 == 11 else json.dumps(order).encode()
        offset = offsets.get(lane, 0)
        offsets[lane] = offset + 1
        given.append(Given(lane, offset, key, value))
    return given
