"""Runs `headwater` commands for the benchmarks, as a user would: in processes of their own, on a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with a log, an archive and a state, and the app that works there."""

    folder: Path
    app: str = "benchmarks.apps.spend"
    environment: dict[str, str] = field(default_factory=dict)
    kafka: str = ""
    """The URL of the brokers the log is on, or nothing for a log in the folder."""

    @property
    def log(self) -> str:
        """The log's URL."""
        return self.kafka or f"file://{self.folder}/log"

    @property
    def archive(self) -> str:
        """The archive's URL."""
        return f"file://{self.folder}/archive"

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    def options(self) -> list[str]:
        """Return the options before a command."""
        return ["-A", self.app, "--log", self.log, "--archive", self.archive, "--state", str(self.state)]

    def environ(self) -> dict[str, str]:
        """Return the environment of a command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
        return {**kept, "PYTHONHASHSEED": "0", **self.environment}

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command that goes on."""
        return subprocess.Popen(
            [sys.executable, "-m", "headwater", *self.options(), *command],
            env=self.environ(), text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, *command: str) -> str:
        """Run a command and return what it prints; ends the benchmark where it fails."""
        return self._run([sys.executable, "-m", "headwater", *self.options(), *command])

    def timed(self, *command: str, stages: bool = False) -> dict[str, Any]:
        """Run a command under the stopwatch and return its report."""
        report = self.folder / "report.json"
        flags = ["--stages"] if stages else []
        self._run(
            [
                sys.executable,
                "-m",
                "benchmarks.stopwatch",
                str(report),
                *flags,
                "--",
                *self.options(),
                *command,
            ]
        )
        found: dict[str, Any] = json.loads(report.read_text())
        return found

    def table(self, name: str, *options: str) -> dict[str, Any]:
        """Return a table's rows as `table dump` shows them."""
        lines = self.run("table", "dump", name, "--json", *options).splitlines()
        rows = [json.loads(line) for line in lines if line.startswith("{")]
        return {row["key"]: row["value"] for row in rows}

    def _run(self, arguments: list[str]) -> str:
        done = subprocess.run(
            arguments, env=self.environ(), text=True, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return done.stdout


def stop(process: subprocess.Popen[str]) -> None:
    """End a command as a user would; one that hangs is killed, and said so."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise SystemExit("the worker did not end within 15 s of SIGTERM") from None
