"""A log, an archive and a state folder in one place, and Headwater's command line over them: nothing else is used."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
COMMAND_S = 900.0
"""No command of these tests takes longer; one that hangs must not hang the test."""


@dataclass(slots=True)
class Place:
    """Where an app's log, archive and state lie. Each method is one command, which must end with code 0."""

    folder: Path
    app: str
    environment: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[str], None] = print
    log: str = ""
    """The log's URL, where it is not a folder of the place."""

    @property
    def log_url(self) -> str:
        """Return the log's URL."""
        return self.log or f"file://{self.folder}/log"

    def with_app(self, app: str, **environment: str) -> Place:
        """Return the same place seen through another app module and environment."""
        return Place(self.folder, app, {**self.environment, **environment}, self.note, self.log)

    def run(self, *arguments: str | Path, codes: Sequence[int] = (0,)) -> str:
        """Run a command and return what it wrote to stdout; note how long it took."""
        command = [
            sys.executable, "-m", "headwater", "-A", self.app,
            "--log", self.log_url, "--archive", f"file://{self.folder}/archive",
            "--state", f"{self.folder}/state", *map(str, arguments),
        ]  # fmt: skip
        paths = os.pathsep.join([str(ROOT / "framework"), str(ROOT)])
        began_s = time.perf_counter()
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": paths, **self.environment},
            cwd=self.folder.parent,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        taken_s = time.perf_counter() - began_s
        if done.returncode not in codes:
            raise AssertionError(
                f"{' '.join(map(str, arguments))} ended with {done.returncode}\n{done.stdout[:2000]}\n{done.stderr[-4000:]}"
            )
        self.note(f"{taken_s:7.1f} s  {self.folder.name}: {' '.join(map(str, arguments))}")
        return done.stdout

    def send(self, topic: str, file: Path, partitions: int) -> None:
        """Append a file's records."""
        self.run("send", topic, "--file", file, "--partitions", str(partitions))

    def work(self, processes: int = 1) -> None:
        """Run a worker until all is done."""
        self.run("worker", "--until-idle", "--processes", str(processes))

    def archive(self) -> None:
        """Archive all that is in the log."""
        self.run("archive", "run", "--until-idle")

    def trim(self, topic: str) -> None:
        """Drop from the log what is archived, and see that it is gone."""
        self.run("trim", topic)

    def replay(self, name: str, *options: str) -> None:
        """Replay as generation `name`."""
        self.run("replay", "--as", name, *options)

    def dump(self, table: str, *options: str) -> str:
        """Return a table's canonical dump."""
        return self.run("table", "dump", table, "--json", *options)

    def rows(self, table: str, *options: str) -> list[dict[str, Any]]:
        """Return a table's values."""
        return [json.loads(line)["value"] for line in self.dump(table, *options).splitlines()]

    def hashes(self, tables: Sequence[str], generation: str | None = None) -> dict[str, str]:
        """Return the SHA-256 of each table's canonical dump: what "byte for byte" means."""
        options = () if generation is None else ("--generation", generation)
        return {table: hashlib.sha256(self.dump(table, *options).encode()).hexdigest() for table in tables}

    def ranges(self, topic: str) -> list[dict[str, Any]]:
        """Return where a topic's records lie, partition by partition."""
        lines = [json.loads(line) for line in self.run("topics", "--json").splitlines()]
        return [line for line in lines if line.get("topic") == topic]
