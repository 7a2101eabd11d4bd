"""A replay of the archive, record by record, into a keyed table: `headwater replay` beside the pyarrow loop.

The records are archived by Headwater and trimmed from the log, so that the replay reads Parquet alone; the loop reads
the archive's very files. The loop keeps its table in a dict and writes nothing; beside it stands the ratio to the loop
that also keeps every change, as the replay does.
"""

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
from benchmarks.reference import parquet_loop
from benchmarks.running import Place

GOAL = 0.65
DESIGN = 1500.0


def main() -> int:
    """Print one line for each history; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=data.RECORDS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--stages", action="store_true", help="also print where the replay's time went, in ns a record"
    )
    options = parser.parse_args()
    histories = ("exact", "none")
    headwater = {history: Rates() for history in histories}
    bare, logged = Rates(), Rates()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        folder = Path(name)
        origin = Place(folder / "origin")
        load_log(origin.log, options.records)
        origin.run("archive", "run", "--until-idle")
        origin.run("trim", "clicks")
        segments = sorted((origin.folder / "archive").rglob("clicks~*/**/*.parquet"))
        if not segments:
            raise SystemExit("the archive has no segments of clicks")
        for turn in range(options.rounds):
            for history in histories:
                place = Place(folder / f"{history}-{turn}", environment={"SPEND_HISTORY": history})
                shutil.copytree(origin.folder, place.folder)
                report = place.timed("replay", "--from", "earliest", "--as", "again", stages=options.stages)
                data.check(place.table("spend", "--generation", "again"), options.records)
                headwater[history].add(options.records, report["seconds"], report["cpu_seconds"])
                shutil.rmtree(place.folder)
                if options.stages:
                    shown = {stage: round(s / options.records * 1e9) for stage, s in report["stages"].items()}
                    shown["all"] = round(report["seconds"] / options.records * 1e9)
                    shown["processor"] = round(report["cpu_seconds"] / options.records * 1e9)
                    sys.stdout.write(
                        f"history={history} commits={report['commits']} ns/record {json.dumps(shown)}\n"
                    )
            for rates, changelog in ((bare, None), (logged, folder / f"changes-{turn}.sqlite")):
                done = parquet_loop.run(segments, changelog=changelog)
                data.check(done.table, options.records)
                rates.add(options.records, done.seconds, done.processor_s)
    met = [
        Ratio("replay, last change per key and epoch", headwater["none"], bare, GOAL, DESIGN).show(),
        Ratio("replay, every change kept", headwater["exact"], bare, GOAL, DESIGN).show(),
    ]
    Ratio("replay, every change kept, by both", headwater["exact"], logged, None).show()
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
