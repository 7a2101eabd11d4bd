"""The questions about flights that need event time, and what SQL says: over the month that is stored, or over a year.

The streams are those that `apps.flights.fetch` writes. A month's departures come from `apps/flights/data`, its plan,
weather and planes from `tests/truth/streams`; what is late and what repeats is made from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apps.flights import streams
from tests.truth.make import SLICE
from tests.truth.nexmark import Answer, canonical
from tests.truth.rows import FOLDER

QUESTIONS = FOLDER / "questions"
STREAMS = FOLDER / "streams"
INSTANTS = (
    "2013-01-02T00:00:00Z",
    "2013-01-02T16:00:00Z",
    "2013-01-03T06:30:00Z",
    "2014-01-02T00:00:00Z",
)
"""As of when question 12 is asked of the month."""
YEAR_INSTANTS = (
    "2013-02-09T00:00:00Z",
    "2013-07-04T16:00:00Z",
    "2013-11-03T06:30:00Z",
    "2014-01-02T00:00:00Z",
)


@cache
def month() -> Mapping[str, pa.Table]:
    """Return a month of each stream, with `offset`."""
    found = {
        path.stem: pq.read_table(path)
        for path in (
            SLICE / "departures.parquet",
            SLICE / "flight_status.parquet",
            *STREAMS.glob("*.parquet"),
        )
    }
    left = found["departures"]
    found["departures_late"] = left.set_column(
        left.schema.get_field_index("timestamp"), "timestamp", left["sched_dep"]
    )
    repeated = streams.flights_dup(found["flights_sched"].drop_columns(["offset"]))
    found["flights_dup"] = repeated.add_column(0, "offset", pa.array(range(len(repeated)), pa.int64()))
    return found


@cache
def month_answers(hours: int | None = None) -> dict[str, Answer]:
    """Run all questions over the month; with `hours`, over the records of its first hours only."""
    return answers({name: first_hours(table, hours) for name, table in month().items()}, INSTANTS)


def first_hours(table: pa.Table, hours: int | None) -> pa.Table:
    """Return the records of a stream's first hours, by event time, numbered anew; None: all."""
    if hours is None:
        return table
    start_us = pa.scalar(streams.PLANES_AT, pa.timestamp("us")).cast(pa.int64()).as_py()
    found = table.filter(pc.less(table["timestamp"].cast(pa.int64()), start_us + hours * streams.HOUR_US))
    return found.set_column(0, "offset", pa.array(range(len(found)), pa.int64()))


def year_answers(folder: Path) -> dict[str, Answer]:
    """Run all questions over the year that the fetch command wrote."""
    tables = {path.stem: pq.read_table(path) for path in folder.glob("*.parquet")}
    return answers(tables, YEAR_INSTANTS)


def answers(tables: Mapping[str, pa.Table], instants: tuple[str, ...]) -> dict[str, Answer]:
    """Run all questions over tables."""
    connection = duckdb.connect()
    connection.execute("set TimeZone='UTC'")
    for name, table in tables.items():
        connection.register(name, table)
    found = {}
    for path in sorted(QUESTIONS.glob("*.sql")):
        query = path.read_text(encoding="utf-8")
        given = (
            {"instants": [instant.removesuffix("Z") for instant in instants]} if "$instants" in query else {}
        )
        result = connection.execute(query, given)
        columns = tuple(column[0] for column in result.description or ())
        times = frozenset(
            column[0] for column in result.description or () if str(column[1]).startswith("TIMESTAMP")
        )
        rows: list[dict[str, Any]] = [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
        for row in rows:
            row.update({name: value.isoformat() for name, value in row.items() if type(value) is date})
        found[path.stem] = Answer(columns, times, canonical(columns, times, rows))
    return found
