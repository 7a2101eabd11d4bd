"""The size of an archive beside its raw records: the month of flights that ships, or another folder with its streams.

Raw is key and value (JSON as `send` makes it) and 16 bytes a record. What is counted of the archive is every byte in its folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.figure import Limit
from benchmarks.running import Place
from headwater.log import open_log

LIMIT = 0.25
RECORD_BYTES = 16
DATA = Path(__file__).parent.parent / "apps" / "flights" / "data"


def main() -> int:
    """Print one line a stream; exit code 1 where the archive is larger than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DATA, help="a folder with departures.parquet and flight_status.parquet"
    )
    options = parser.parse_args()
    met = []
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        place = Place(Path(name) / "flights", app="apps.flights")
        for topic in ("departures", "flight_status"):
            place.run("send", topic, "--file", str(options.data / f"{topic}.parquet"), "--partitions", "1")
        log = open_log(place.log)
        raw = {topic: raw_bytes(log, topic) for topic in ("departures", "flight_status")}
        log.close()
        place.run("archive", "run", "departures", "flight_status", "--until-idle")
        for topic, size in raw.items():
            files = [path for path in (place.folder / "archive").rglob(f"{topic}~*/**/*") if path.is_file()]
            if not any(path.suffix == ".parquet" for path in files):
                raise SystemExit(f"nothing of {topic} is archived")
            share = sum(path.stat().st_size for path in files) / size
            note = f"{size / 1e6:.1f} MB raw"
            met.append(Limit(f"archive of {topic}, share of raw bytes", share, LIMIT, "", note).show())
    return 0 if all(met) else 1


def raw_bytes(log: object, topic: str) -> int:
    """Return the size of a topic's records, read from the log."""
    from headwater.log.interface import Log

    assert isinstance(log, Log)
    total = position = 0
    end = log.end_offset(topic, 0)
    while position < end:
        batch = log.read(topic, 0, position, end=end)
        total += sum(
            len(k or b"") + len(v or b"") + RECORD_BYTES
            for k, v in zip(batch.keys, batch.values, strict=True)
        )
        position = batch.next
    return total


if __name__ == "__main__":
    sys.exit(main())
