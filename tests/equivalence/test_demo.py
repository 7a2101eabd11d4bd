"""The demo's figures are those that SQL finds in the data it was given, at every step."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.truth.make import SLICE, SLICE_START, truths_of
from tests.truth.rows import SLICE_AS_OF, canonical_lines, slice_truth

ROOT = Path(__file__).parents[2]
STEPS = ["live", "tables", "archive", "trim", "mistake", "rewind", "diff", "promote", "as_of"]
TOTALS = (
    "select carrier, count(*) as n, sum(distance)::bigint as distance, avg(dep_delay) as mean from departures"
)


@dataclass(frozen=True, slots=True)
class Told:
    """One run of the demo: its steps by name, and the folders of its data and of what it left."""

    steps: dict[str, dict[str, Any]]
    data: Path
    kept: Path


def headwater(*words: str, folder: Path) -> str:
    """Run the command line as a process of its own in the folder, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "framework"), str(ROOT)])
    command = [sys.executable, "-m", "headwater", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def tell(folder: Path, data: Path, *more: str) -> Told:
    """Run the demo."""
    kept = folder / "kept"
    lines = headwater("demo", "--json", "--keep", str(kept), *more, folder=folder).splitlines()
    return Told({step["step"]: step for step in map(json.loads, lines)}, data, kept)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Return the demo on the month that ships."""
    return tell(tmp_path_factory.mktemp("shipped"), SLICE)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Return the demo on a copy in which one early departure of the first half left a day late."""
    folder = tmp_path_factory.mktemp("changed")
    data = folder / "data"
    shutil.copytree(SLICE, data)
    rows = pq.read_table(data / "departures.parquet")
    delays = rows["dep_delay"].to_pylist()
    row = next(at for at, delay in enumerate(delays) if delay < 0 and rows["carrier"][at].as_py() == "UA")
    delays[row] = 1440
    column = rows.schema.get_field_index("dep_delay")
    pq.write_table(
        rows.set_column(column, "dep_delay", pa.array(delays, pa.int64())), data / "departures.parquet"
    )
    return tell(folder, data, "--data", str(data))


@pytest.fixture(params=["shipped", "changed"])
def told(request: pytest.FixtureRequest) -> Told:
    """Return each run in turn."""
    found: Told = request.getfixturevalue(request.param)
    return found


def sql(told: Told, query: str) -> list[dict[str, Any]]:
    """Ask the data that the demo was given."""
    connection = duckdb.connect()
    file = told.data / "departures.parquet"
    connection.execute(f"create view departures as select * from read_parquet('{file}')")
    found = connection.execute(query)
    columns = [column[0] for column in found.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


def airlines(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return airlines' totals as canonical text."""
    return canonical_lines(("carrier", "n", "distance", "mean"), rows)


def dumped(told: Told, table: str, *more: str) -> list[dict[str, Any]]:
    """Dump a table in the folder that the demo kept, as a person would who looks around."""
    lines = headwater("table", "dump", table, "--json", *more, folder=told.kept).splitlines()
    return [json.loads(line)["value"] for line in lines]


def test_the_story_has_its_steps_in_order_and_shows_the_commands_it_runs(shipped: Told) -> None:
    assert list(shipped.steps) == STEPS
    told = [command for step in shipped.steps.values() for command in step["commands"]]
    verbs = [
        "send",
        "worker",
        "archive run",
        "archive verify",
        "trim",
        "replay",
        "diff",
        "promote",
        "--as-of",
    ]
    assert [verb for verb in verbs if not any(verb in command for command in told)] == []
    assert all(command.startswith("headwater ") for command in told)


def test_all_records_are_sent_archived_and_gone_from_the_log(told: Told) -> None:
    (truth,) = sql(told, "select count(*) as n from departures")
    assert told.steps["live"]["sent"] == [{"topic": "departures", "sent": truth["n"]}]
    archived = {row["topic"]: row["records"] for row in told.steps["archive"]["archived"]}
    assert archived["departures"] == truth["n"]
    assert told.steps["archive"]["says"] == ["No byte differs, no offset is missing."]
    assert told.steps["trim"]["left"] == [{"topic": "departures", "archive": truth["n"], "log": 0}]


def test_the_mistaken_tables_lack_the_early_departures(told: Told) -> None:
    mistaken = sql(told, f"{TOTALS} where dep_delay >= 0 group by all")
    assert airlines(told.steps["tables"]["airlines"]) == airlines(mistaken)
    (counts,) = told.steps["mistake"]["departures"]
    (truth,) = sql(
        told, "select count(*) as archived, count(*) filter (dep_delay >= 0) as counted from departures"
    )
    assert counts == {**truth, "skipped": truth["archived"] - truth["counted"]}
    removed = [line for line in told.steps["mistake"]["code"] if line.startswith("-")]
    assert [line[1:].strip() for line in removed] == ["if flight.dep_delay < 0:", "continue"]


def test_the_diff_names_what_sql_finds_different(told: Told) -> None:
    both = (
        "select {key} as key, count(*) filter (dep_delay >= 0) as n_a, avg(dep_delay) filter (dep_delay >= 0) as mean_a,"
        " count(*) as n_b, avg(dep_delay) as mean_b from departures group by {key} order by encode({key})"
    )
    found = {row["table"]: row for row in told.steps["diff"]["tables"]}
    for table, name, key in (("airline_totals", "airlines", "carrier"), ("plane_mean", "planes", "tailnum")):
        rows = [row | {"n_a": row["n_a"] or None} for row in sql(told, both.format(key=key))]
        differing = [row for row in rows if row["n_a"] != row["n_b"]]
        assert found[table] == {
            "table": table,
            "rows_a": sum(row["n_a"] is not None for row in rows),
            "rows_b": len(rows),
            "changed": sum(row["n_a"] is not None for row in differing),
            "only_a": 0,
            "only_b": sum(row["n_a"] is None for row in differing),
        }
        named = sorted(told.steps["diff"][name], key=lambda row: row["key"])
        assert named == differing[: len(named)]
        assert len(named) == min(20, len(differing))


def test_after_the_promotion_readers_see_the_truth(told: Told) -> None:
    truths = truths_of(told.data, as_of=SLICE_AS_OF, start=SLICE_START)
    warm = truths["f10_replay_warm"]
    assert canonical_lines(warm.columns, told.steps["promote"]["airlines"]) == warm.lines
    rows = {row["name"]: row for row in told.steps["rewind"]["generations"]}
    assert (rows["live"]["promoted"], rows["fixed"]["promoted"]) == ("yes", "no")
    planes = truths["f02_plane_mean"]
    assert canonical_lines(planes.columns, dumped(told, "plane_mean")) == planes.lines


def test_mid_month_is_what_was_known_then(told: Told) -> None:
    then = sql(told, f"{TOTALS} where timestamp <= timestamp '{SLICE_AS_OF}' group by all")
    assert airlines(told.steps["as_of"]["airlines"]) == airlines(then)
    known = truths_of(told.data, as_of=SLICE_AS_OF, start=SLICE_START)["f06_planes_seen_asof"]
    planes = dumped(told, "plane_mean", "--as-of", f"{SLICE_AS_OF}Z")
    seen = [{"tailnum": row["tailnum"], "n": row["n"], "last_seen": row["last_ts"]} for row in planes]
    expected = [json.loads(line) for line in known.lines]
    assert canonical_lines(("tailnum", "n", "last_seen"), seen) == canonical_lines(
        ("tailnum", "n", "last_seen"), expected
    )


def test_one_changed_record_changes_the_figures(shipped: Told, changed: Told) -> None:
    assert (
        slice_truth("f10_replay_warm")
        == truths_of(SLICE, as_of=SLICE_AS_OF, start=SLICE_START)["f10_replay_warm"]
    )

    def of(told: Told, step: str) -> dict[str, Any]:
        return {row["carrier"]: row for row in told.steps[step]["airlines"]}

    for step, counted in (("tables", 1), ("promote", 0), ("as_of", 0)):
        before, after = of(shipped, step), of(changed, step)
        assert [key for key in before if before[key] != after[key]] == ["UA"], step
        assert after["UA"]["mean"] > before["UA"]["mean"]
        assert after["UA"]["n"] - before["UA"]["n"] == counted
    assert changed.steps["mistake"]["departures"] != shipped.steps["mistake"]["departures"]


def test_a_worker_goes_on_in_a_promoted_generation_from_where_its_replay_ended(tmp_path: Path) -> None:
    month = pq.read_table(SLICE / "departures.parquet")
    for name, part in (("first", month.slice(0, 13_000)), ("rest", month.slice(13_000))):
        pq.write_table(part, tmp_path / f"{name}.parquet")
    app = ("-A", "apps.flights")
    headwater("send", "departures", "--file", "first.parquet", folder=tmp_path)
    headwater("-A", "apps.flights.buggy", "worker", "--until-idle", folder=tmp_path)
    headwater(*app, "replay", "--from", "earliest", "--as", "fixed", folder=tmp_path)
    headwater(*app, "promote", "fixed", folder=tmp_path)
    headwater("send", "departures", "--file", "rest.parquet", folder=tmp_path)
    headwater(*app, "worker", "--until-idle", folder=tmp_path)
    told = Told({}, SLICE, tmp_path)
    for name, table in (("f02_plane_mean", "plane_mean"), ("f10_replay_warm", "airline_totals")):
        truth = slice_truth(name)
        assert canonical_lines(truth.columns, dumped(told, table)) == truth.lines


def test_the_page_for_people_is_plain_where_nobody_looks(tmp_path: Path) -> None:
    page = headwater("demo", folder=tmp_path)
    assert "\x1b" not in page
    assert [line[:2] for line in page.splitlines() if line[:1].isdigit()] == [f"{n}." for n in range(1, 10)]
    assert "  $ headwater trim departures\n" in page
    assert list(tmp_path.iterdir()) == []


def test_the_mistaken_app_is_the_flights_app_but_for_its_mistake() -> None:
    def bodies(path: Path) -> dict[str, str]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        return {
            getattr(node, "name", ast.unparse(node)): ast.unparse(node)
            for node in tree.body
            if isinstance(node, ast.AsyncFunctionDef | ast.Assign)
        }

    flights = bodies(ROOT / "apps" / "flights" / "__init__.py")
    buggy = bodies(ROOT / "apps" / "flights" / "buggy.py")
    mistake = "        if flight.dep_delay < 0:\n            continue\n"
    assert buggy != flights
    assert {name: body.replace(mistake, "") for name, body in buggy.items()} == flights
