"""State of a windowed table over moving event time: rows and bytes must not grow with the history.

10 M records of 1,000 keys, ten milliseconds of event time apart, in windows of a minute that leave ten minutes after they
closed. After each tenth the worker is idle: counted are the table's rows, and the bytes of its state folder. A state that keeps
everything doubles from the first five tenths to the last five; allowed are a tenth more rows, and half as many bytes more, which
hang on when RocksDB clears away what was deleted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.figure import Limit
from benchmarks.running import Place
from headwater.core.batch import Append
from headwater.log import open_log

RECORDS = 10_000_000
KEYS = 1_000
STEP_MS = 10
BEGIN_MS = 1_700_000_000_000
CHUNK = 50_000
ROWS_GROWTH_MAX, BYTES_GROWTH_MAX = 0.10, 0.50
PARTS = 10


def main() -> int:
    """Print a line a part, then the two figures; exit code 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    part = parser.parse_args().records // PARTS
    rows: list[int] = []
    sizes: list[int] = []
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        place = Place(Path(name), app="benchmarks.apps.expiring")
        for number in range(PARTS):
            _append(place.log, number * part, part)
            place.run("worker", "--until-idle")
            rows.append(len(place.run("table", "dump", "minutes", "--json").splitlines()))
            sizes.append(sum(path.stat().st_size for path in place.state.rglob("*") if path.is_file()))
            sys.stdout.write(
                f"{(number + 1) * part:,} records: {rows[-1]:,} rows, {sizes[-1] / 1e6:.1f} MB of state\n"
            )
            sys.stdout.flush()
    half = PARTS // 2
    limits = [
        Limit(
            f"{what} after twice the records",
            max(found[half:]) / max(found[:half]) - 1,
            growth_max,
            "more than before",
        )
        for what, found, growth_max in (
            ("rows", rows, ROWS_GROWTH_MAX),
            ("bytes of state", sizes, BYTES_GROWTH_MAX),
        )
    ]
    shown = [limit.show() for limit in limits]
    return 0 if all(shown) else 1


def _append(url: str, first: int, count: int) -> None:
    """Append the records of one part."""
    log = open_log(url)
    try:
        log.create_topic("events", 1)
        for start in range(first, first + count, CHUNK):
            numbers = range(start, min(first + count, start + CHUNK))
            times = [BEGIN_MS + n * STEP_MS for n in numbers]
            keys: list[bytes | None] = [b"key-%03d" % (n * 7919 % KEYS) for n in numbers]
            log.append([Append("events", 0, times, keys, [b"1"] * len(numbers))])
    finally:
        log.close()


if __name__ == "__main__":
    sys.exit(main())
