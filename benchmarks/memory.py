"""Memory under a producer a hundred times faster than the agent: the worker's must stay where it was.

The base is the greatest memory of the same worker while the producer is as fast as the agent; then the producer goes a
hundred times faster. Resident memory may rise by 10 % of the configured buffers at most.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks import data
from benchmarks.figure import Limit
from benchmarks.running import Place
from headwater.core.batch import Append
from headwater.log import open_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.log.interface import Log

BUFFER_BYTES = 64 << 20  # as apps/slow.py configures them
AGENT_RATE = 900  # four partitions, each with an agent that waits four milliseconds a record
FASTER = 100
TICK_S = 0.05
WARM_S = 4.0


def _clicks() -> Iterator[tuple[int, int, bytes, bytes]]:
    parts = data.partitions(200_000)
    while True:
        for columns in zip(*(zip(p.timestamps, p.keys, p.values, strict=True) for p in parts), strict=False):
            yield from ((partition, *record) for partition, record in enumerate(columns))


def produce(
    log: Log, clicks: Iterator[tuple[int, int, bytes, bytes]], rate: int, seconds: float, pid: int
) -> list[int]:
    """Append `rate` records a second; return the worker's resident memory at each tick."""
    process = psutil.Process(pid)
    samples = []
    begin = time.perf_counter()
    sent = 0
    while (passed := time.perf_counter() - begin) < seconds:
        due = int(passed * rate) - sent
        if due:
            columns: dict[int, tuple[list[int], list[bytes | None], list[bytes | None]]] = {}
            for _ in range(due):
                partition, timestamp, key, value = next(clicks)
                column = columns.setdefault(partition, ([], [], []))
                column[0].append(timestamp)
                column[1].append(key)
                column[2].append(value)
            log.append([Append("clicks", partition, *column) for partition, column in columns.items()])
            sent += due
        samples.append(process.memory_info().rss)
        time.sleep(TICK_S)
    return samples


def main() -> int:
    """Print the rise; exit code 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each half")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        place = Place(Path(name), app="benchmarks.apps.slow")
        log = open_log(place.log)
        log.create_topic("clicks", data.PARTITIONS)
        clicks = _clicks()
        worker = place.start("worker")
        try:
            produce(log, clicks, AGENT_RATE, WARM_S, worker.pid)
            even = produce(log, clicks, AGENT_RATE, options.seconds, worker.pid)
            rushed = produce(log, clicks, AGENT_RATE * FASTER, options.seconds, worker.pid)
            if worker.poll() is not None:
                raise SystemExit(f"the worker ended by itself with {worker.returncode}")
        finally:
            worker.kill()  # how it ends is not what is measured, and what it holds is not worth the wait
            worker.wait()
            log.close()
    mib = 1 << 20
    base, peak = max(even) / mib, max(rushed) / mib
    note = f"base {base:.1f} MiB, peak {peak:.1f} MiB, buffers {BUFFER_BYTES / mib:.0f} MiB"
    limit = Limit("memory, producer 100 x faster: rise", peak - base, BUFFER_BYTES / mib / 10, "MiB", note)
    return 0 if limit.show() else 1


if __name__ == "__main__":
    sys.exit(main())
