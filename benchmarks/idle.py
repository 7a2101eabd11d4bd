"""What an idle worker costs: the processor time of a worker that has nothing to do."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.figure import Limit
from benchmarks.loading import load_log
from benchmarks.running import Place, stop

LIMIT = 0.01
SETTLE_S = 5.0
RECORDS = 20_000


def main() -> int:
    """Print the share of a core; exit code 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        place = Place(Path(name))
        load_log(place.log, RECORDS)
        worker = place.start("worker")
        try:
            time.sleep(SETTLE_S)
            process = psutil.Process(worker.pid)
            before = process.cpu_times()
            time.sleep(options.seconds)
            after = process.cpu_times()
            if worker.poll() is not None:
                raise SystemExit(f"the worker ended by itself with {worker.returncode}")
        finally:
            stop(worker)
        if not place.table("spend"):
            raise SystemExit("the worker did nothing before it was idle")
    spent = after.user + after.system - before.user - before.system
    note = f"{spent:.2f} s in {options.seconds:.0f} s"
    return 0 if Limit("idle worker, share of a core", spent / options.seconds, LIMIT, "", note).show() else 1


if __name__ == "__main__":
    sys.exit(main())
