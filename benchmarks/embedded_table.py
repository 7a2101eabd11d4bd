"""A keyed table with changelog over the embedded log, exactly once: Headwater's worker beside the SQLite-batch loop."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.figure import Rates, Ratio
from benchmarks.loading import load_log
from benchmarks.reference import sqlite_table
from benchmarks.running import Place

GOAL = 0.60
DESIGN = {"exact": 740.0, "none": 1250.0}


def main() -> int:
    """Print one line for each history; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=data.RECORDS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--stages", action="store_true", help="also print where the worker's time went, in ns a record"
    )
    options = parser.parse_args()
    rates = {history: (Rates(), Rates()) for history in DESIGN}
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        folder = Path(name)
        load_log(f"file://{folder}/loaded", options.records)
        sqlite_table.store(folder / "reference.sqlite", options.records)
        for turn in range(options.rounds):
            for history, (headwater, reference) in rates.items():
                place = Place(folder / f"{history}-{turn}", environment={"SPEND_HISTORY": history})
                shutil.copytree(folder / "loaded", place.folder / "log")
                report = place.timed("worker", "--until-idle", stages=options.stages)
                data.check(place.table("spend"), options.records)
                headwater.add(options.records, report["seconds"], report["cpu_seconds"])
                shutil.rmtree(place.folder)
                if options.stages:
                    shown = {stage: round(s / options.records * 1e9) for stage, s in report["stages"].items()}
                    shown["all"] = round(report["seconds"] / options.records * 1e9)
                    shown["processor"] = round(report["cpu_seconds"] / options.records * 1e9)
                    sys.stdout.write(
                        f"history={history} commits={report['commits']} ns/record {json.dumps(shown)}\n"
                    )
                done = sqlite_table.run(folder / "reference.sqlite", every_change=history == "exact")
                data.check(done.table, options.records)
                reference.add(options.records, done.seconds, done.processor_s)
    named = {
        "exact": "embedded table, every change kept",
        "none": "embedded table, last change per key and epoch",
    }
    shown_all = [
        Ratio(named[history], *rates[history], goal=GOAL, design=design).show()
        for history, design in DESIGN.items()
    ]
    return 0 if all(shown_all) else 1


if __name__ == "__main__":
    sys.exit(main())
