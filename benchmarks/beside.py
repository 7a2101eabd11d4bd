"""Runs references and peers in processes of their own over the same Kafka topic, and keeps only checked answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figure import Rates, Ratio
from benchmarks.peers.job import Job
from benchmarks.peers.setup import Peer

TIMEOUT_S = 300


class WrongError(Exception):
    """A program ended early, took too long or gave another answer: it has no rate."""


@dataclass(frozen=True, slots=True)
class Done:
    """One program's run."""

    seconds: float
    processor_s: float
    began_s: float
    answer: Any


@dataclass(slots=True)
class Beside:
    """One system in one work: its rounds, or why it has none."""

    name: str
    note: str
    command: list[str]
    guarantee: str = "at_least_once"
    commit_s: float = 0.1
    history: str = "exact"
    rates: Rates = field(default_factory=Rates)
    trouble: str = ""
    left_out: bool = False

    @classmethod
    def module(cls, name: str, module: str, note: str, **options: Any) -> Beside:
        """Return a program of this package."""
        return cls(name, note, [sys.executable, "-m", module], **options)

    @classmethod
    def peer(cls, name: str, note: str, guarantee: str = "at_least_once", commit_s: float = 0.1) -> Beside:
        """Return a peer; a missing one has its reason as trouble."""
        peer = Peer(name)
        trouble = peer.missing() or ""
        return cls(
            name,
            note,
            [] if trouble else peer.command(),
            guarantee,
            commit_s,
            trouble=trouble and f"missing: {trouble}",
        )

    def compare(self, claim: str, reference: Beside, goal: float, design: float) -> bool:
        """Print the claim's line; return whether it is met. Trouble in any round is a miss."""
        if self.left_out or reference.left_out:
            return True
        trouble = self.trouble or reference.trouble
        if trouble:
            sys.stdout.write(f"{claim:46} FAIL: {trouble}\n")
            return False
        return Ratio(claim, self.rates, reference.rates, goal, design).show()

    def show(self, reference: Rates) -> None:
        """Print its line: the rate, and the ratio to the reference's median."""
        name = f"{self.name} ({self.note})"
        if self.left_out:
            return
        if not self.rates.wall:
            sys.stdout.write(f"  {name:62} {self.trouble}\n")
            return
        mine = median(self.rates.wall)
        also = f"  last: {self.trouble}" if self.trouble else ""
        ratio = f"  ratio {mine / median(reference.wall):.2f}" if reference.wall else ""
        processor = median(self.rates.processor)
        sys.stdout.write(
            f"  {name:62} {mine:7.1f} k/s{ratio}  ({processor:.1f} k/s of processor time){also}\n"
        )
        sys.stdout.flush()


def run(
    beside: Beside, work: str, bootstrap: str, topic: str, records: int, output: str, results: int = 0
) -> Done:
    """Run one program once. Raises WrongError with what it said last where it failed or took too long."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-peer-") as name:
        folder = Path(name)
        report = folder / "report.json"
        job = Job(
            work,
            bootstrap,
            topic,
            records,
            results,
            output,
            beside.guarantee,
            beside.commit_s,
            beside.history,
            str(folder / "state"),
            str(report),
        )
        job.write(folder / "job.json")
        with (folder / "said").open("wb") as said:
            process = start(beside, folder / "job.json", said)
            try:
                code = process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise WrongError(f"not done after {TIMEOUT_S} s{_last(folder)}") from None
            finally:
                end(process)
        if not report.exists():
            raise WrongError(f"ended with {code} and no report{_last(folder)}")
        found = json.loads(report.read_text())
        if found["seen"] < records:
            raise WrongError(f"saw {found['seen']} of {records} records")
        return Done(found["seconds"], found["processor_s"], found["began_s"], found["answer"])


def start(beside: Beside, job: Path, said: Any) -> subprocess.Popen[bytes]:
    """Start a program on a job, in a process group of its own."""
    return subprocess.Popen(
        [*beside.command, str(job)],
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program with all it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last(folder: Path) -> str:
    lines = (folder / "said").read_text(errors="replace").strip().splitlines()
    return f"; it said: {lines[-1][:200]}" if lines else ""


def attempt(
    beside: Beside, records: int, once: Callable[[], Done], check: Callable[[Done], float | None]
) -> None:
    """Run and check; only a right answer's time counts. `check` may return other seconds (of an output's end)."""
    if beside.trouble.startswith("missing"):
        return
    try:
        done = once()
        seconds = check(done) or done.seconds
    except WrongError as error:
        beside.trouble = str(error)
        return
    beside.rates.add(records, seconds, done.processor_s)
