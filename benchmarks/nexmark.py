"""The 23 Nexmark queries: what each needs, how long its code is, and its rate in a replay beside a batch query in DuckDB.

    python -m benchmarks.nexmark EVENTS.jsonl [--queries q5 q7] [--bytewax PYTHON] [--markdown]

EVENTS.jsonl is what `nexmark-gen` of benchmarks/nexmark_gen wrote (`cargo run --release -- --n 100000 --seed 1 --rate 20`).
Each query replays the archived topic in a process of its own, from the first fetch to the last commit, exactly once
into tables and topics; its answer is compared with DuckDB's row for row: a wrong answer has no rate. DuckDB's time is
that of the query over the same JSON values in memory. All rates are by processor time, so that they can be compared on a
machine that does other work too; the wall clock's rate stands beside Headwater's. `--bytewax`: a Python that has Bytewax; it runs
the queries of `benchmarks/reference/nexmark_bytewax.py` over the same values, at least once and without an output log.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import duckdb

from benchmarks.running import Place
from tests.truth import nexmark

ROOT = Path(__file__).parent.parent
APPS = ROOT / "apps" / "nexmark"
QUERIES = [f"q{number}" for number in range(23)]
TABLES = {"q4", "q6", "q9", "q15", "q16", "q17", "q18", "q19"}
NEEDS = {
    "q0": "map",
    "q1": "map",
    "q2": "filter",
    "q3": "stream–stream join, unbounded",
    "q4": "join within each auction's time, top 1, mean over a table that retracts",
    "q5": "hopping windows, then the top of each with ties",
    "q6": "join, top 1, last 11 of a seller in an agent",
    "q7": "tumbling maximum joined back within an interval",
    "q8": "join within a window, dedupe",
    "q9": "join within each auction's time, top 1",
    "q10": "map; the archive is the partitioned sink",
    "q11": "session windows",
    "q12": "tumbling windows by event time",
    "q13": "lookup in a bounded list",
    "q14": "filter, functions",
    "q15": "filtered and distinct counts, one hot key",
    "q16": "the same, composite key",
    "q17": "count, min, max, mean, sum",
    "q18": "last of each composite key",
    "q19": "top 10 of each key with rank",
    "q20": "stream–stream join, unbounded, wide rows",
    "q21": "filter, regular expression",
    "q22": "text functions",
}


@dataclass(slots=True)
class Figure:
    """What one query gave."""

    query: str
    lines: int
    rows: int
    records_per_s: float
    wall_records_per_s: float
    duckdb_s: float
    bytewax_records_per_s: float | None = None


def code_lines(query: str) -> int:
    """Count a query's lines of code: no blank lines, comments, docstrings or imports of annotations."""
    modules = [APPS / f"{query}.py"]
    if "from .winning import" in modules[0].read_text(encoding="utf-8"):
        modules.append(APPS / "winning.py")
    return sum(map(_code_lines, modules))


def _code_lines(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            left_out.add(node.lineno)
    return sum(
        1
        for number, line in enumerate(text.splitlines(), 1)
        if number not in left_out and line.strip() and not line.strip().startswith("#")
    )


def replayed(place: Place, query: str, answer: nexmark.Answer, records: int) -> tuple[float, float]:
    """Replay a query over the archive, check its answer, and return records a second of processor time, and of the clock."""
    report = place.timed("replay", "--from", "earliest", "--as", "again", "--drain")
    if query in TABLES:
        text = place.run("table", "dump", query, "--json", "--generation", "again")
    else:
        text = place.run("read", query, "--json", "--generation", "again")
    rows = [json.loads(line)["value"] for line in text.splitlines()]
    found = answer.lines_of(rows)
    if found != answer.lines:
        raise SystemExit(f"{query}: {len(found)} rows are not DuckDB's {len(answer.lines)}")
    return records / report["cpu_seconds"], records / report["seconds"]


def duckdb_seconds(connection: Any, query: str, rounds: int) -> float:
    """Return the least processor time of a query in DuckDB."""
    text = (nexmark.QUERIES / f"{query}.sql").read_text(encoding="utf-8").rstrip().rstrip(";")
    times = []
    for _ in range(rounds):
        began_s = process_time()
        connection.execute(f"create or replace temp table answer as {text}")
        times.append(process_time() - began_s)
    return min(times)


def bytewax_rate(python: str, query: str, events: Path, records: int, answer: nexmark.Answer) -> float | None:
    """Return Bytewax's rate, or None where its script doesn't express the query."""
    reference = importlib.import_module("benchmarks.reference.nexmark_bytewax")
    if query not in reference.EXPRESSED:
        return None
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        out = Path(folder) / "rows.jsonl"
        script = ROOT / "benchmarks" / "reference" / "nexmark_bytewax.py"
        done = subprocess.run(
            [python, str(script), query, str(events), str(out)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"bytewax {query} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        found = answer.lines_of([json.loads(line) for line in out.read_text().splitlines()])
        if found != answer.lines:
            raise SystemExit(f"bytewax {query}: {len(found)} rows are not DuckDB's {len(answer.lines)}")
    return float(records / json.loads(done.stdout)["seconds"])


def measure(events: Path, queries: list[str], rounds: int, bytewax: str | None) -> list[Figure]:
    """Run all queries over a file of the generator's events."""
    answers = nexmark.answers(events)
    connection = duckdb.connect()
    connection.execute("set TimeZone='UTC'")
    nexmark.load(connection, events)
    figures = []
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        folder = Path(name)
        envelopes = folder / "nexmark.jsonl"
        records = 0
        with events.open(encoding="utf-8") as lines, envelopes.open("w", encoding="utf-8") as out:
            for line in lines:
                out.write(json.dumps(nexmark.envelope(json.loads(line))) + "\n")
                records += 1
        origin = Place(folder / "origin", app="apps.nexmark.q0")
        origin.run("send", "nexmark", "--file", str(envelopes), "--partitions", "4")
        origin.run("archive", "run", "--until-idle")
        origin.run("trim", "nexmark")
        for query in queries:
            rates = []
            for turn in range(rounds):
                place = Place(folder / f"{query}-{turn}", app=f"apps.nexmark.{query}")
                shutil.copytree(origin.folder, place.folder)
                rates.append(replayed(place, query, answers[query], records))
                shutil.rmtree(place.folder)
            figure = Figure(
                query,
                code_lines(query),
                len(answers[query].lines),
                max(rates)[0],
                max(rates)[1],
                duckdb_seconds(connection, query, rounds),
                None if bytewax is None else bytewax_rate(bytewax, query, events, records, answers[query]),
            )
            figures.append(figure)
            beside = (
                ""
                if figure.bytewax_records_per_s is None
                else f"  bytewax {figure.bytewax_records_per_s:9,.0f}/s"
            )
            print(
                f"{query:4} {figure.rows:7,} rows  {figure.lines:3} lines  {figure.records_per_s:9,.0f} records/s "
                f"({figure.wall_records_per_s:,.0f} by the clock)  "
                f"duckdb {figure.duckdb_s:6.3f} s ({records / figure.duckdb_s:11,.0f}/s){beside}",
                flush=True,
            )
    return figures


def markdown(figures: list[Figure]) -> str:
    """Return the table of docs/guide/nexmark.md."""
    lines = [
        "| query | needs | result | rows | lines of code | records/s in replay | DuckDB, batch | Bytewax |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for figure in figures:
        kind = "table" if figure.query in TABLES else "topic"
        other = figure.bytewax_records_per_s
        beside = "–" if other is None else f"{other:,.0f}/s"
        lines.append(
            f"| {figure.query} | {NEEDS[figure.query]} | {kind} | {figure.rows:,} | {figure.lines} | "
            f"{figure.records_per_s:,.0f} | {figure.duckdb_s:.2f} s | {beside} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print a line for each query, and with --markdown the table of the docs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("events", type=Path, metavar="EVENTS.jsonl")
    parser.add_argument("--queries", nargs="*", default=QUERIES, metavar="QUERY")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bytewax", metavar="PYTHON", help="a Python that has Bytewax")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    figures = measure(options.events, options.queries, options.rounds, options.bytewax)
    if options.markdown:
        print(markdown(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
