"""Compute the truths of flights with DuckDB: rows for the month in `apps/flights/data`, hashes for the year.

    python -m tests.truth.make             the month's, into tests/truth/slice
    python -m tests.truth.make --year DIR  the year's, into tests/truth/year.json (DIR: what the fetch command wrote)

The queries are the whole of the truth: they share no code with Headwater.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import duckdb

from tests.truth.rows import FOLDER, SLICE_AS_OF, YEAR_AS_OF, YEAR_START, Truth, canonical_lines

SLICE = FOLDER.parent.parent / "apps" / "flights" / "data"
SLICE_START = SLICE_AS_OF
"""The month's replay starts in mid-month too."""
PLAIN_BYTES_MAX = 1_000_000
"""Truths are text that a review can read, until they would weigh the checkout down."""


def truths_of(streams: Path, *, as_of: str, start: str, until: str | None = None) -> dict[str, Truth]:
    """Run every query whose input stands in the folder; keys are the queries' names.

    With `until`, an ISO time without zone, the inputs are only the records up to then, and at it: what a table as of
    that time must hold.
    """
    connection = duckdb.connect()
    known = f"where timestamp <= timestamp '{until}'" if until is not None else ""
    for path in sorted(streams.glob("*.parquet")):
        connection.execute(f"create view {path.stem} as select * from read_parquet('{path}') {known}")
    inputs = {path.stem for path in streams.glob("*.parquet")}
    given = {"as_of": as_of, "start": start}
    truths = {}
    for path in sorted((FOLDER / "queries").glob("*.sql")):
        query = path.read_text(encoding="utf-8")
        if query.partition("\nfrom ")[2].split()[0] not in inputs:
            continue
        answer = connection.execute(
            query, {name: time for name, time in given.items() if f"${name}" in query}
        )
        columns = tuple(column[0] for column in answer.description or ())
        rows: list[dict[str, Any]] = [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]
        truths[path.stem] = Truth(columns, canonical_lines(columns, rows))
    return truths


def write_slice() -> None:
    """Write the month's rows, one file a query."""
    for name, truth in truths_of(SLICE, as_of=SLICE_AS_OF, start=SLICE_START).items():
        text = "".join(f"{line}\n" for line in truth.lines).encode()
        path = FOLDER / "slice" / f"{name}.jsonl"
        if len(text) < PLAIN_BYTES_MAX:
            path.write_bytes(text)
        else:
            path = path.with_suffix(".jsonl.gz")
            path.write_bytes(gzip.compress(text, mtime=0))
        print(f"{path.name}: {len(truth.lines):,} rows")


def write_year(streams: Path) -> None:
    """Write the year's counts and hashes."""
    truths = truths_of(streams, as_of=YEAR_AS_OF, start=YEAR_START)
    facts = {
        name: {"columns": truth.columns, "rows": len(truth.lines), "sha256": truth.sha256}
        for name, truth in truths.items()
    }
    (FOLDER / "year.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"year.json: {', '.join(facts)}")


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.truth.make")
    parser.add_argument(
        "--year", type=Path, metavar="DIR", help="compute the year's hashes from these streams"
    )
    options = parser.parse_args()
    if options.year is not None:
        write_year(options.year)
    else:
        write_slice()


if __name__ == "__main__":
    main()
