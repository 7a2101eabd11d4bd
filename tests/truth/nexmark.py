"""The Nexmark set: 4,000 events of the public generator, in order and out of order, and what SQL says about them.

    python -m tests.truth.nexmark EVENTS.jsonl    store another set (what `nexmark-gen` of benchmarks/nexmark_gen wrote)

The stored one: `nexmark-gen --n 4000 --seed 22 --rate 50 --base-ms 1437004760000`: 80 s around a midnight, so days
change. The queries are the whole of the truth: they share no code with Headwater.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from tests.truth.rows import FOLDER, canonical_value, hash_lines

EVENTS = FOLDER / "streams" / "nexmark.jsonl.gz"
FACTS = FOLDER / "nexmark.json"
QUERIES = FOLDER / "nexmark_queries"
GROUP = 200
"""Within so many events the order is mixed: 4 s, less than the 5 s that the apps allow for."""
STRIDE = 953
"""The generator's own: the i-th of a group to arrive is event i * 953 modulo the group's size."""

VIEWS = """
create table raw as select eid, kind, ts, value from read_json($file, format='newline_delimited',
  columns={eid:'BIGINT', kind:'VARCHAR', ts:'BIGINT', value:'JSON'});
create view person as select eid, (value->>'id')::bigint id, value->>'name' name, value->>'email_address' emailAddress,
  value->>'credit_card' creditCard, value->>'city' city, value->>'state' state, make_timestamp(ts*1000) dateTime,
  value->>'extra' extra from raw where kind='person';
create view auction as select eid, (value->>'id')::bigint id, value->>'item_name' itemName,
  value->>'description' description, (value->>'initial_bid')::bigint initialBid, (value->>'reserve')::bigint reserve,
  make_timestamp(ts*1000) dateTime, make_timestamp((value->>'expires')::bigint*1000) expires,
  (value->>'seller')::bigint seller, (value->>'category')::bigint category, value->>'extra' extra
  from raw where kind='auction';
create view bid as select eid, (value->>'auction')::bigint auction, (value->>'bidder')::bigint bidder,
  (value->>'price')::bigint price, value->>'channel' channel, value->>'url' url, make_timestamp(ts*1000) dateTime,
  value->>'extra' extra from raw where kind='bid';
create view side_input as select i as key, i::varchar as value from range(10000) t(i);
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A query's rows, in any order: `times` are the columns that hold times."""

    columns: tuple[str, ...]
    times: frozenset[str]
    lines: tuple[str, ...]

    def lines_of(self, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
        """Return other rows in the same form, so that they can be compared: just these columns."""
        return canonical(self.columns, self.times, rows)


def canonical(
    columns: Sequence[str], times: frozenset[str], rows: Sequence[dict[str, Any]]
) -> tuple[str, ...]:
    """Return rows as sorted lines of JSON. Times may be ms, ISO text or datetimes."""
    dump = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    def lined(row: dict[str, Any]) -> str:
        picked = {name: canonical_value(row[name]) for name in columns}
        for name in times:
            picked[name] = _iso(picked[name])
        return dump.encode(picked)

    return tuple(sorted(map(lined, rows)))


def _iso(time: Any) -> Any:
    if isinstance(time, int):
        return canonical_value(datetime.fromtimestamp(time / 1000, UTC))
    if isinstance(time, str) and len(time) != len("2013-01-01T00:00:00.000Z"):
        return canonical_value(datetime.fromisoformat(time))
    return time


@cache
def events() -> tuple[dict[str, Any], ...]:
    """Return the generator's events in their order: eid, kind, key, ts (ms) and value."""
    with gzip.open(EVENTS, "rt", encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


def arrivals(*, in_order: bool, group: int = GROUP) -> Iterator[dict[str, Any]]:
    """Yield the events as they arrive. Out of order is the generator's own order with `--ooo GROUP`."""
    there = events()
    for at in range(len(there)):
        number = at if in_order else at // group * group + at * STRIDE % group
        yield there[number]


def envelope(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event as `headwater send --file` takes it."""
    value = {"event": event["kind"], "eid": event["eid"], **event["value"]}
    return {"timestamp": event["ts"], "key": event["key"], "value": value}


@cache
def answers(file: Path | None = None) -> dict[str, Answer]:
    """Run all queries over the stored events, or over a file of the generator's."""
    connection = duckdb.connect()
    connection.execute("set TimeZone='UTC'")
    with tempfile.TemporaryDirectory() as folder:
        path = file
        if path is None:
            path = Path(folder) / "events.jsonl"
            path.write_text("".join(f"{json.dumps(event)}\n" for event in events()), encoding="utf-8")
        load(connection, path)
    found = {}
    for query in sorted(QUERIES.glob("*.sql")):
        result = connection.execute(query.read_text(encoding="utf-8"))
        columns = tuple(column[0] for column in result.description or ())
        times = frozenset(
            column[0] for column in result.description or () if str(column[1]).startswith("TIMESTAMP")
        )
        rows = [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
        found[query.stem] = Answer(columns, times, canonical(columns, times, rows))
    return found


def load(connection: Any, file: Path) -> None:
    """Make the views `person`, `auction` and `bid` over a file of the generator's events."""
    create, *views = VIEWS.strip().removesuffix(";").split(";\n")
    connection.execute(create, {"file": str(file)})
    for view in views:
        connection.execute(view)


def facts() -> dict[str, dict[str, Any]]:
    """Return, by query, how many rows it gives and their hash: small enough to be stored."""
    stored: dict[str, dict[str, Any]] = json.loads(FACTS.read_text(encoding="utf-8"))
    return stored


def computed_facts() -> dict[str, dict[str, Any]]:
    """Return the same from the queries themselves."""
    return {
        name: {"columns": list(answer.columns), "rows": len(answer.lines), "sha256": hash_lines(answer.lines)}
        for name, answer in answers().items()
    }


def main() -> None:
    """Store a set of events, and what SQL says about it."""
    parser = argparse.ArgumentParser(prog="python -m tests.truth.nexmark")
    parser.add_argument("events", type=Path, metavar="EVENTS.jsonl", help="what nexmark-gen wrote")
    options = parser.parse_args()
    EVENTS.write_bytes(gzip.compress(options.events.read_bytes(), mtime=0))
    found = computed_facts()
    FACTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(", ".join(f"{name} {fact['rows']}" for name, fact in found.items()))


if __name__ == "__main__":
    main()
