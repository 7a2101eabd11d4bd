"""A folder of its own for each test, the command line run within it, and an app that counts words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headwater.cli.main import cli

WORDS_APP = '''
import headwater as hw

app = hw.App("words", retries=0)
words = app.topic("words", value_type=str, partitions=2)
loud = app.topic("loud", value_type=str, partitions=2)
counts = app.Table("counts", default=int, partitions=2)


@app.agent(words, sink=[loud])
async def count(stream):
    """Count each word."""
    async for key, word in stream.items():
        if word == "bad":
            raise ValueError("a bad word")
        counts[key] += 1
        yield word.upper()
'''


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command in a folder of the test's own. An exception that is no refusal fails the test."""
    monkeypatch.chdir(tmp_path)
    # This process is not the command's own, and could not take it back.
    monkeypatch.setattr("headwater.cli.replay.give_way", lambda: None)
    for name in ("LOG", "ARCHIVE", "STATE", "TRACEBACK"):
        monkeypatch.delenv(f"HEADWATER_{name}", raising=False)
    path = list(sys.path)
    # A file changed within a second and of the same size would pass for the one that was compiled.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget() -> None:
        """An app runs once in a process: let the next command import its module anew, as another process would."""
        for name, module in list(sys.modules.items()):
            if str(tmp_path) in str(getattr(module, "__file__", None)):
                del sys.modules[name]

    def call(*arguments: str, stdin: str | bytes | None = None, code: int = 0) -> Result:
        forget()
        found = CliRunner().invoke(cli, list(arguments), input=stdin)
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        assert found.exit_code == code, f"exit code {found.exit_code}: {found.stdout}{found.stderr}"
        assert "Traceback" not in found.stderr
        return Result(found.exit_code, found.stdout, found.stderr)

    yield call
    sys.path[:] = path
    forget()


@pytest.fixture
def words_app(tmp_path: Path) -> str:
    """Write the app's module, and return what to give to -A."""
    (tmp_path / "words_app.py").write_text(WORDS_APP)
    return "words_app"


def envelopes(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
