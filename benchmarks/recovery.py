"""Recovery of a million keys from the changelog: a worker whose state folder is gone, until its tables are there again."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks import data
from benchmarks.figure import Limit
from benchmarks.loading import load_log
from benchmarks.reference import recovery as reference
from benchmarks.running import Place

LIMIT_S = 0.9


def main() -> int:
    """Print the median; exit code 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=data.RECORDS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        place = Place(Path(name) / "place")
        load_log(place.log, options.keys, options.keys)
        place.run("worker", "--until-idle")
        data.check(place.table("spend"), options.keys, options.keys)
        reference.store(Path(name) / "reference.sqlite", options.keys)
        for _ in range(options.rounds):
            shutil.rmtree(place.state)
            report = place.timed("worker", "--until-idle")
            if report["recovery_seconds"] is None:
                raise SystemExit("the worker recovered nothing")
            found.append(report["recovery_seconds"])
            bare.append(reference.run(Path(name) / "reference.sqlite"))
    note = f"{options.keys} keys; the bare loop takes {median(bare):.2f} s; design: Kafka Streams 0.96 s"
    return 0 if Limit("recovery from the changelog", median(found), LIMIT_S, "s", note).show() else 1


if __name__ == "__main__":
    sys.exit(main())
