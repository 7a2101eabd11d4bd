"""Headwater's part of a contest over Kafka: the `worker` command under the stopwatch, as the job says.

python -m benchmarks.kafka_headwater JOB.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.job import Job
from benchmarks.stopwatch import Stopwatch

APPS = {
    "map": "benchmarks.apps.large",
    "table": "benchmarks.apps.spend",
    "windows": "benchmarks.apps.minutes",
    "latency": "benchmarks.apps.running",
}


def main() -> int:
    """Run the worker until all is processed, and report the answer that its own commands give."""
    job = Job.read()
    os.environ.update(
        BENCH_APP=job.output,
        BENCH_TOPIC=job.topic,
        BENCH_OUTPUT=job.output,
        BENCH_GUARANTEE=job.guarantee,
        SPEND_HISTORY=job.history,
    )
    options = ["-A", APPS[job.work], "--log", f"kafka://{job.bootstrap}", "--state", f"{job.folder}/state",
               "--archive", f"file://{job.folder}/archive"]  # fmt: skip
    ends = [] if job.work == "latency" else ["--until-idle"]
    watch = Stopwatch()
    watch.install(stages=False, kafka=True)
    # What belongs to start-up and not to a record: pyarrow looks for other packages at its first array.
    import pyarrow as pa

    pa.array([b"warm"], pa.binary())
    from headwater.cli.main import main as headwater

    sys.argv = ["headwater", *options, "worker", "--epoch", str(job.commit_s), *ends]
    try:
        headwater()
    except SystemExit as leaving:
        if leaving.code:
            return int(leaving.code)
    report = watch.report()
    answer: Any = None
    if job.work == "map":
        answer = import_module(APPS["map"]).found
    elif job.work == "table":
        dumped = subprocess.run(
            [sys.executable, "-m", "headwater", *options, "table", "dump", "spend", "--json"],
            check=True,
            text=True,
            capture_output=True,
        )
        rows = [json.loads(line) for line in dumped.stdout.splitlines()]
        answer = {row["key"]: row["value"] for row in rows}
    Path(job.report).write_text(
        json.dumps(
            {
                "seconds": report["seconds"],
                "processor_s": report["cpu_seconds"],
                "began_s": report["began_s"],
                # The answer tells whether all were seen.
                "seen": job.records,
                "answer": answer,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
