"""The month of flights that ships, and its truths: SQL, the stored rows and a plain loop all agree."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.truth.make import SLICE, SLICE_START, truths_of
from tests.truth.rows import SLICE_AS_OF, canonical_lines, slice_truth, year_truths

NAMES = ["f02_plane_mean", "f06_planes_seen_asof", "f10_replay_cold", "f10_replay_warm", "f12_status_final"]


def records(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(SLICE / f"{name}.parquet").to_pylist()
    return rows


def test_the_slice_holds_january_and_nothing_else() -> None:
    for name, count in (("departures", 26_308), ("flight_status", 53_786)):
        times = [record["timestamp"] for record in records(name)]
        assert len(times) == count
        assert times == sorted(times)
        assert datetime(2013, 1, 1) <= times[0]
        assert times[-1] < datetime(2013, 2, 1)


def test_each_file_of_the_slice_stays_small() -> None:
    for path in SLICE.glob("*.parquet"):
        assert path.stat().st_size < 1_500_000, path.name


def test_sql_over_the_slice_gives_the_stored_truths() -> None:
    computed = truths_of(SLICE, as_of=SLICE_AS_OF, start=SLICE_START)
    assert sorted(computed) == NAMES
    for name in NAMES:
        assert computed[name] == slice_truth(name), name


def test_a_plain_loop_gives_the_same_plane_means() -> None:
    planes: dict[str, dict[str, Any]] = {}
    for record in records("departures"):
        plane = planes.setdefault(record["key"], {"tailnum": record["key"], "n": 0, "total": 0})
        plane["n"] += 1
        plane["total"] += record["dep_delay"]
        plane["mean"] = plane["total"] / plane["n"]
        plane["last_ts"] = record["timestamp"]
    truth = slice_truth("f02_plane_mean")
    assert canonical_lines(truth.columns, planes.values()) == truth.lines


@pytest.mark.parametrize(
    ("name", "start"), [("f10_replay_cold", SLICE_START), ("f10_replay_warm", "2013-01-01T00:00:00")]
)
def test_a_plain_loop_gives_the_same_airline_totals(name: str, start: str) -> None:
    delays: dict[str, list[int]] = defaultdict(list)
    miles: dict[str, int] = defaultdict(int)
    for record in records("departures"):
        if record["timestamp"] >= datetime.fromisoformat(start):
            delays[record["carrier"]].append(record["dep_delay"])
            miles[record["carrier"]] += record["distance"]
    rows = [
        {"carrier": carrier, "n": len(of), "distance": miles[carrier], "mean": sum(of) / len(of)}
        for carrier, of in delays.items()
    ]
    truth = slice_truth(name)
    assert canonical_lines(truth.columns, rows) == truth.lines


def test_a_plain_loop_gives_the_same_planes_as_of_mid_month() -> None:
    seen: dict[str, list[datetime]] = defaultdict(list)
    for record in records("departures"):
        if record["timestamp"] <= datetime.fromisoformat(SLICE_AS_OF):
            seen[record["key"]].append(record["timestamp"])
    rows = [
        {"tailnum": key, "n": len(times), "first_seen": times[0], "last_seen": times[-1]}
        for key, times in seen.items()
    ]
    truth = slice_truth("f06_planes_seen_asof")
    assert canonical_lines(truth.columns, rows) == truth.lines


def test_a_plain_loop_gives_the_same_final_status() -> None:
    table: dict[str, dict[str, Any]] = {}
    for record in records("flight_status"):
        if record["deleted"]:
            table.pop(record["key"], None)
        else:
            table[record["key"]] = {**record, "flight_id": record["key"], "updated": record["timestamp"]}
    truth = slice_truth("f12_status_final")
    assert canonical_lines(truth.columns, table.values()) == truth.lines


def test_the_years_facts_name_every_query() -> None:
    assert sorted(year_truths()) == [*NAMES, "late_last"]
    assert year_truths()["f12_status_final"]["rows"] == 328_521


def test_the_inputs_up_to_an_instant_give_what_was_known_then() -> None:
    then = truths_of(SLICE, as_of="2013-12-31T00:00:00", start=SLICE_START, until=SLICE_AS_OF)
    assert then["f06_planes_seen_asof"] == slice_truth("f06_planes_seen_asof")
    assert then["f02_plane_mean"].lines != slice_truth("f02_plane_mean").lines
