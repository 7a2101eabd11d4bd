"""A month of flights in one process: live, replayed in both orders, handed over and as of are SQL's and each other's."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import headwater as hw
from headwater.merge.merge import Merge
from tests.equivalence.place import ROOT, Place
from tests.equivalence.world import Given, World, sha256
from tests.truth.make import SLICE, SLICE_START, truths_of
from tests.truth.rows import SLICE_AS_OF, Truth, canonical_lines, slice_truth

TRUTHS = {"plane_mean": "f02_plane_mean", "airline_totals": "f10_replay_warm", "status": "f12_status_final"}
FLIGHTS = ROOT / "apps" / "flights" / "__init__.py"


def flights() -> hw.App:
    """Return the flights app made anew: an app object runs once, and a module holds one."""
    name = "flights_of_this_run"
    spec = importlib.util.spec_from_file_location(name, FLIGHTS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its types' annotations are looked up
    spec.loader.exec_module(module)
    app: hw.App = module.app
    return app


@cache
def given(topic: str) -> list[Given]:
    """Return the slice's records as `send` would append them."""
    records = []
    for row in pq.read_table(SLICE / f"{topic}.parquet").to_pylist():
        key, time = row.pop("key"), row.pop("timestamp")
        del row["offset"]
        deleted = row.pop("deleted", False)
        value = None if deleted else json.dumps(row, default=_iso, separators=(",", ":")).encode()
        records.append(Given(key.encode(), value, _ms(time)))
    return records


def _ms(time: datetime) -> int:
    return round(time.replace(tzinfo=UTC).timestamp() * 1000)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds") + "Z"


def agrees(
    world: World, table: str, truth: Truth, generation: str = "live", as_of: int | None = None
) -> bool:
    """Tell whether a table is a truth, on the truth's columns."""
    rows: list[dict[str, Any]] = [json.loads(line)["value"] for line in world.dump(table, generation, as_of)]
    return canonical_lines(truth.columns, rows) == truth.lines


@pytest.fixture
def new_world(tmp_path: Path) -> Callable[[str], World]:
    def make(name: str) -> World:
        folder = tmp_path / name
        folder.mkdir()
        return World(flights, folder, f"memory://month-{tmp_path.name}-{name}")

    return make


@pytest.mark.parametrize("partitions", [1, 4])
def test_live_and_replay_in_both_orders_are_sqls_whatever_the_batches(
    new_world: Callable[[str], World], partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holds promise 2: replay equals live, byte for byte within a layout."""
    world = new_world("live")
    for topic in ("departures", "flight_status"):
        world.send(topic, partitions, given(topic))
    world.work(epoch_s=0.05)
    for table, name in TRUTHS.items():
        assert agrees(world, table, slice_truth(name)), table
    live = {table: sha256(world.dump(table)) for table in TRUTHS}
    world.archive()
    world.trim("departures")

    world.replay("by_time")
    monkeypatch.setattr(Merge.__init__, "__kwdefaults__", {"records_max": 331})
    world.replay("by_live", order="live")
    for generation in ("by_time", "by_live"):
        assert {table: sha256(world.dump(table, generation)) for table in TRUTHS} == live, generation

    world.replay("cold", time_from=_ms(datetime.fromisoformat(SLICE_START)))
    assert agrees(world, "airline_totals", slice_truth("f10_replay_cold"), "cold")


def test_tables_as_of_an_instant_are_sqls_over_the_departures_up_to_it(
    new_world: Callable[[str], World],
) -> None:
    """On one partition, where a table's order is that of the topic. Half of the instants are times of departures."""
    world = new_world("as_of")
    records = given("departures")
    world.send("departures", 1, records)
    world.work()
    world.archive()
    world.trim("departures")
    instants = [records[at].timestamp - at % 2 for at in range(400, len(records), 5_003)]
    for instant in [_ms(datetime.fromisoformat(SLICE_AS_OF)), *instants]:
        until = datetime.fromtimestamp(instant / 1000, UTC).replace(tzinfo=None)
        truths = truths_of(
            SLICE, as_of=SLICE_AS_OF, start=SLICE_START, until=until.isoformat(timespec="milliseconds")
        )
        for table in ("plane_mean", "airline_totals"):
            assert agrees(world, table, truths[TRUTHS[table]], as_of=instant), (table, until)


@pytest.mark.parametrize("partitions", [1, 4])
def test_handed_over_at_any_offset_the_tables_are_the_same(
    new_world: Callable[[str], World], partitions: int
) -> None:
    """Holds promise 1: five times, the log begins where the archive ends, each time elsewhere."""
    records = given("departures")
    for cut in (1, 5_001, 13_154, 20_002, len(records) - 1):
        world = new_world(f"cut{cut}")
        world.send("departures", partitions, records[:cut])
        world.archive()
        world.trim("departures")
        world.send("departures", partitions, records[cut:])
        world.work()
        for table in ("plane_mean", "airline_totals"):
            assert agrees(world, table, slice_truth(TRUTHS[table])), (cut, table)
        world.forget()


def test_three_processes_on_four_partitions_give_sqls_tables(tmp_path: Path) -> None:
    place = Place(tmp_path / "three", "apps.flights")
    place.send("departures", SLICE / "departures.parquet", 4)
    place.work(processes=3)
    for table in ("plane_mean", "airline_totals"):
        truth = slice_truth(TRUTHS[table])
        assert canonical_lines(truth.columns, place.rows(table)) == truth.lines, table
