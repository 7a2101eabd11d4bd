"""Memory of a replay behind a group_by, over four partitions of very unequal density.

One partition has four tenths of the records all along, one a tenth, one nearly half of them within the last hundredth of the
time, one the rest in its first half. What the third sends belongs behind everything else, and would wait in memory.
The replay's greatest resident memory must not grow with the history: ten times the records may add a tenth of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.figure import Limit
from benchmarks.running import Place
from headwater.core.batch import Append
from headwater.log import open_log

if TYPE_CHECKING:
    from collections.abc import Iterator

SPAN_MS = 30 * 86_400_000
BEGIN_MS = 1_700_000_000_000
CHUNK = 50_000
SHARES = ((0.40, 0.0, 1.0), (0.10, 0.0, 1.0), (0.45, 0.99, 1.0), (0.05, 0.0, 0.5))
"""Of each partition: its part of the records, and where in the time they lie."""

GROWTH_MAX = 0.10


def _chunks(records: int) -> Iterator[Append]:
    for partition, (share, low, high) in enumerate(SHARES):
        count = int(records * share)
        span = (high - low) * SPAN_MS / max(1, count)
        first = BEGIN_MS + int(low * SPAN_MS)
        for start in range(0, count, CHUNK):
            rows = range(start, min(count, start + CHUNK))
            yield Append(
                "events",
                partition,
                [first + int(n * span) for n in rows],
                [None] * len(rows),
                [
                    b"g%03d a record of about a hundred bytes, as the other benchmarks have them %020d"
                    % (n % 997, n)
                    for n in rows
                ],
            )


def measure(records: int, environment: dict[str, str]) -> tuple[float, float]:
    """Return the replay's greatest resident memory in MB, and its thousands of records a second."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        place = Place(Path(name), app="benchmarks.apps.regroup", environment=environment)
        log = open_log(place.log)
        log.create_topic("events", len(SHARES))
        for append in _chunks(records):
            log.append([append])
        log.close()
        begin = time.perf_counter()
        replay = place.start("replay", "--from", "earliest", "--as", "again")
        process, greatest = psutil.Process(replay.pid), 0
        while replay.poll() is None:
            try:
                greatest = max(greatest, process.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(0.05)
        if replay.wait() != 0:
            sys.exit("the replay failed")
        took = time.perf_counter() - begin
        states = {
            g["name"]: g["state"] for g in map(json.loads, place.run("generations", "--json").splitlines())
        }
        if states["again"] != "finished":
            sys.exit(f"the replay was stopped before its end (it is {states['again']})")
        rows = place.run("table", "dump", "counts", "--generation", "again", "--json").splitlines()
        total = sum(int(row.rsplit(":", 1)[1].rstrip("}")) for row in rows)
        if total != sum(int(records * share) for share, _, _ in SHARES):
            sys.exit(f"the table counts {total:,} records of {records:,}")
        return greatest / 2**20, records / took / 1000


def main() -> int:
    """Print the figures; exit code 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--ahead", type=float, help="seconds of event time (else by bytes)")
    parser.add_argument("--once", action="store_true", help="the full size only, without the limit")
    options = parser.parse_args()
    environment = {} if options.ahead is None else {"AHEAD_S": str(options.ahead)}
    small = 0.0
    if not options.once:
        small, rate = measure(options.records // 10, environment)
        sys.stdout.write(f"{options.records // 10:,} records: {small:.0f} MB at most, {rate:.0f} k/s\n")
    full, rate = measure(options.records, environment)
    sys.stdout.write(f"{options.records:,} records: {full:.0f} MB at most, {rate:.0f} k/s\n")
    if options.once:
        return 0
    growth = Limit("memory with ten times the records", full / small - 1, GROWTH_MAX, "of what it was")
    return 0 if growth.show() else 1


if __name__ == "__main__":
    sys.exit(main())
