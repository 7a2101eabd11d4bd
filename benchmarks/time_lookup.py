"""How long an archive takes to say which offset a time has, in 1,000 segments, with timestamps out of order.

Warm: the archive has been asked once. Cold: it was just opened, so it lists and reads every footer; printed, no goal. Each answer
is checked. With `--versitygw BINARY` also on an object store on loopback.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from benchmarks.figure import Limit
from headwater.archive import open_archive
from headwater.archive.writer import Archiver
from headwater.core.batch import Append
from headwater.log import open_log

LIMIT_MS = 10.0
SEGMENTS = 1_000
RECORDS = 2_000
"""In each segment."""


def main() -> int:
    """Print a line for each storage; exit code 1 where the limit does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=SEGMENTS)
    parser.add_argument("--lookups", type=int, default=200)
    parser.add_argument("--versitygw", help="the path of a versitygw binary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        met = [measure("a folder", f"file://{name}/archive", {}, options.segments, options.lookups)]
    if options.versitygw:
        from tests import object_stores

        with object_stores.versitygw(str(Path(options.versitygw).absolute())) as place:
            for fast in (True, False):
                what = f"versitygw by {'obstore' if fast else 's3fs'}"
                given = {**place.options, "accelerate": fast}
                met.append(measure(what, place.url(f"a{fast}"), given, options.segments, options.lookups))
    return 0 if all(met) else 1


def measure(what: str, url: str, options: dict[str, Any], segments: int, lookups: int) -> bool:
    """Fill an archive, look times up, print the line."""
    random = Random(1)
    log = open_log(f"memory://lookup-{what}")
    log.create_topic("clicks", 1)
    times = [at + random.randrange(-5_000, 5_000) for at in range(segments * RECORDS)]
    for low in range(0, len(times), RECORDS):
        part = times[low : low + RECORDS]
        log.append([Append("clicks", 0, part, [b"key"] * len(part), [b"value-%d" % time for time in part])])
    Archiver(log, open_archive(url, log.log_id, options), ["clicks"], roll_rows=RECORDS).until_idle()
    highest: list[int] = []
    for each in times:
        highest.append(max(each, highest[-1] if highest else each))
    archive = open_archive(url, log.log_id, options)
    began = time.perf_counter()
    archive.offset_for_time("clicks", 0, times[-1] // 2)
    cold_ms = (time.perf_counter() - began) * 1000
    taken = []
    for _ in range(lookups):
        wanted = random.randrange(len(times) - 5_000)
        began = time.perf_counter()
        found = archive.offset_for_time("clicks", 0, wanted)
        taken.append((time.perf_counter() - began) * 1000)
        if found is None or highest[found] < wanted or (found and highest[found - 1] >= wanted):
            raise SystemExit(f"time {wanted}: offset {found} is wrong")
    taken.sort()
    note = f"median of {lookups}; 99 %: {taken[int(len(taken) * 0.99)]:.1f} ms; cold, {segments} footers read: {cold_ms:.0f} ms"
    shown = Limit(
        f"time look-up in {segments:,} segments, {what}", median(taken), LIMIT_MS, "ms", note
    ).show()
    archive.close()
    log.close()
    return shown


if __name__ == "__main__":
    sys.exit(main())
