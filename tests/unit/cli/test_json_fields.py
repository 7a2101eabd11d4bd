"""`--json`: one object a line on stdout and nothing else, with the very fields that the reference lists."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Run, envelopes
from tests.unit.cli.test_main import ROOT

REFERENCE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
# Named in the reference as values of a field, or under a heading of their own, not as fields.
VALUES = {
    "running", "finished", "failed", "promoted", "discarded", "time", "live", "output", "gap", "missing", "overlap",
    "footer", "bytes", "page", "records", "bounds", "place", "meta", "decode", "table", "--sha256",
}  # fmt: skip
EITHER = {"key", "key_b64", "value", "value_b64", "headers", "headers_b64", "a", "b", "a_b64", "b_b64"}
# Of tables of windows only; shown to be there by a test of their own.
WINDOWS = {"start", "end", "final", "a_final", "b_final"}


def documented(name: str) -> set[str]:
    section = re.search(
        rf"^### `headwater {name}`[^\n]*\n(.*?)(?=^##|\Z)", REFERENCE, re.MULTILINE | re.DOTALL
    )
    assert section is not None
    line = re.search(r"^JSON: (.*)$", section.group(1), re.MULTILINE)
    assert line is not None
    return set(re.findall(r"`([^`]+)`", line.group(1)))


def names_in(found: Any) -> Iterator[str]:
    """Yield the names of an object and of those in its lists, but not those that people's data have."""
    if isinstance(found, list):
        for item in found:
            yield from names_in(item)
    elif isinstance(found, dict):
        for name, value in found.items():
            yield name
            if name in ("ranges", "keys", "dead"):
                yield from names_in(value)


@pytest.fixture
def story(run: Run, words_app: str) -> str:
    texts = ["a", "b", "bad", "a"]
    lines = envelopes(*[{"key": t, "value": t, "timestamp": 1000 * n} for n, t in enumerate(texts)])
    run("-A", words_app, "send", "words", "--file", "-", stdin=lines)
    run("-A", words_app, "worker", "--until-idle", "-l", "error")
    run("archive", "run", "--until-idle")
    run("-A", words_app, "replay", "--from", "1000", "--as", "v2")
    return words_app


CALLS = [
    ("send", ["send", "words", "x"], 0),
    ("read", ["read", "words"], 0),
    ("read", ["read", "words", "--raw"], 0),
    ("trim", ["trim", "words"], 0),
    ("topics", ["topics", "--all"], 0),
    ("replay", ["replay", "--from", "earliest", "--as", "v3"], 0),
    ("generations", ["generations"], 0),
    ("diff", ["diff", "live", "v2"], 3),
    ("promote", ["promote", "v2"], 0),
    ("rollback", ["rollback"], 0),
    ("discard", ["discard", "v2"], 0),
    ("archive run", ["archive", "run", "--until-idle"], 0),
    ("archive ls", ["archive", "ls"], 0),
    ("table ls", ["table", "ls"], 0),
    ("table get", ["table", "get", "counts", "a"], 0),
    ("table dump", ["table", "dump", "counts"], 0),
    ("table dump", ["table", "dump", "counts", "--sha256"], 0),
    ("dead ls", ["dead", "ls"], 0),
    ("dead show", ["dead", "show"], 0),
    ("dead redrive", ["dead", "redrive"], 0),
    ("config", ["config"], 0),
    ("agents", ["agents"], 0),
    ("models", ["models"], 0),
    ("completion", ["completion", "bash"], 0),
    ("reset", ["reset"], 0),
]


def test_the_fields_are_those_of_the_reference(run: Run, story: str) -> None:
    for name, arguments, code in CALLS:
        rows = run("--json", "-A", story, *arguments, code=code).rows
        assert rows, name
        shown, listed = set(names_in(rows)), documented(name)
        assert shown <= listed, f"{name}: not in the reference: {sorted(shown - listed)}"
        if name == "table dump":
            continue  # it shows rows or, with --sha256, one object; never all of its fields
        missing = (
            listed
            - shown
            - EITHER
            - VALUES
            - WINDOWS
            - {"agent", "operator", "@out:NAME", "@late:NAME", "@changes:TABLE"}
        )
        assert not missing, f"{name}: in the reference, not shown: {sorted(missing)}"


def test_rows_of_windows_have_their_fields(run: Run, words_app: str, tmp_path: Path) -> None:
    with (tmp_path / f"{words_app}.py").open("a") as file:
        file.write(
            'spans = words.stream().group_by().window(hw.windows.Tumbling(10)).aggregate(name="spans", n=hw.agg.count())\n'
        )
    lines = envelopes(*[{"key": "a", "value": "a", "timestamp": time} for time in (0, 3_000, 12_000, 30_000)])
    run("-A", words_app, "send", "words", "--file", "-", stdin=lines)
    run("-A", words_app, "worker", "--until-idle", "-l", "error")
    run("-A", words_app, "replay", "--from", "1000", "--as", "v2")
    rows = run("-A", words_app, "table", "get", "spans", "a", "--json").rows
    assert rows == run("-A", words_app, "table", "dump", "spans", "--json").rows
    assert rows[0] == {"key": "a", "start": 0, "end": 10_000, "final": True, "value": {"n": 2}}
    assert [(row["start"], row["final"]) for row in rows] == [(0, True), (10_000, True), (30_000, False)]
    assert run("-A", words_app, "table", "get", "spans", "b", code=1).err.startswith(
        "headwater: table 'spans' has no row"
    )
    [spans] = [
        row
        for row in run("-A", words_app, "diff", "live", "v2", "--json", code=3).rows
        if row.get("table") == "spans"
    ]
    assert spans["keys"] == [
        {
            "key": "a",
            "start": 0,
            "end": 10_000,
            "a": {"n": 2},
            "a_final": True,
            "b": {"n": 1},
            "b_final": True,
        }
    ]
    shown = set(names_in(rows)) | set(names_in([spans]))
    assert shown <= documented("table get") | documented("diff")
    assert shown >= WINDOWS
    assert "1970-01-01" in run("-A", words_app, "diff", "live", "v2", code=3).out
    # What the aggregate keeps for itself is nobody's table.
    assert [row["table"] for row in run("-A", words_app, "table", "ls", "--json").rows] == ["counts", "spans"]
    kinds = {row["agent"]: row["kind"] for row in run("-A", words_app, "agents", "--json").rows}
    assert kinds == {"count": "agent", "spans": "operator"}


def test_findings_of_verify_have_the_fields_of_the_reference(run: Run, story: str, tmp_path: Path) -> None:
    for file in tmp_path.joinpath(".headwater", "archive").rglob("*.parquet"):
        file.chmod(0o644)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
    rows = run("archive", "verify", "--json", code=1).rows
    assert set(names_in(rows)) <= documented("archive verify")
    assert {"kind", "topic", "partition", "base", "next", "path", "message", "error"} == set(rows[0])


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="/dev/full, a disk that is always full, is Linux's"
)
def test_a_full_disk_is_told_by_one_message(run: Run, story: str, tmp_path: Path) -> None:
    import os

    paths = os.pathsep.join([str(ROOT / "framework"), str(ROOT)])
    with open("/dev/full", "wb") as full:
        found = subprocess.run(
            [sys.executable, "-m", "headwater", "topics"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert found.returncode == 1
    assert found.stderr == "headwater: No space left on device; make room and try again\n"
