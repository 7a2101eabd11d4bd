"""What a program beside Headwater is told, and what it tells: the same for references, peers and Headwater itself.

Only the standard library: each peer runs in a venv of its own. A program is called with the path of a job (JSON) and
writes its report where the job says. Its clock runs from the first record that its function sees to the last one:
start-up, joining a group and the last commit are left out, in the peer's favour.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time, time
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """One run: what to do, over which topic, and where the answer goes."""

    work: str
    """`map`, `table`, `windows` or `latency`."""
    bootstrap: str
    topic: str
    records: int
    results: int
    """How many windows there are to come; 0 for the other works."""
    output: str
    guarantee: str
    """`exactly_once` or `at_least_once`."""
    commit_s: float
    history: str
    """Of a table's changelog: `exact` or `none`, where a program knows both."""
    folder: str
    """For state; empty at the start."""
    report: str

    def write(self, path: Path) -> None:
        """Write the job for a program."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls) -> Job:
        """Return the job named on the command line."""
        return cls(**json.loads(Path(sys.argv[1]).read_text()))


class Counter:
    """Counts records and notes the clock at the first and the last."""

    __slots__ = ("_job", "_processor", "began", "ended", "processor_s", "seen")

    def __init__(self, job: Job) -> None:
        """Begin before the first record."""
        self._job = job
        self.seen = 0
        self.began = self.ended = 0.0
        self._processor = self.processor_s = 0.0

    def record(self) -> bool:
        """Count one; return whether it was the last."""
        if self.seen == 0:
            self.start()
        self.seen += 1
        if self.seen == self._job.records:
            self.stop()
            return True
        return False

    def start(self) -> None:
        """Note the first record."""
        self.began, self._processor = perf_counter(), process_time()

    def stop(self) -> None:
        """Note the last record."""
        self.ended, self.processor_s = perf_counter(), process_time() - self._processor

    def report(self, answer: Any) -> None:
        """Write what was found; `began_s` is the wall clock's, for outputs that the broker stamps."""
        Path(self._job.report).write_text(
            json.dumps(
                {
                    "seconds": self.ended - self.began,
                    "processor_s": self.processor_s,
                    "began_s": time() - (perf_counter() - self.began),
                    "seen": self.seen,
                    "answer": answer,
                }
            )
        )
