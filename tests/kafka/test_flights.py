"""A month of flights over Kafka, on four partitions: live, replayed and handed over, it is SQL's and the embedded log's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.equivalence.place import Place
from tests.equivalence.test_month import TRUTHS, _ms, agrees, flights, given
from tests.equivalence.world import World, sha256
from tests.truth.make import SLICE, SLICE_START
from tests.truth.rows import canonical_lines, slice_truth

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

PARTITIONS = 4
TOPICS = ("departures", "flight_status")


def test_live_and_replays_over_kafka_are_sqls_and_the_embedded_logs(
    alone: Callable[[], str], tmp_path: Path
) -> None:
    """Holds promise 2 over Kafka: the dumps are byte for byte those of the embedded log with as many partitions."""
    embedded = World(flights, tmp_path / "embedded", f"memory://flights-{tmp_path.name}")
    kafka = World(flights, tmp_path / "kafka", alone())
    hashes = []
    for world in (embedded, kafka):
        world.folder.mkdir()
        for topic in TOPICS:
            world.send(topic, PARTITIONS, given(topic))
        world.work(epoch_s=0.05)
        hashes.append({table: sha256(world.dump(table)) for table in TRUTHS})
    embedded.forget()
    for table, name in TRUTHS.items():
        assert agrees(kafka, table, slice_truth(name)), table
    assert hashes[0] == hashes[1]
    kafka.archive()
    kafka.trim("departures")
    for order in ("time", "live"):
        kafka.replay(f"by_{order}", order=order)
        assert {table: sha256(kafka.dump(table, f"by_{order}")) for table in TRUTHS} == hashes[1], order
    kafka.replay("cold", time_from=_ms(datetime.fromisoformat(SLICE_START)))
    assert agrees(kafka, "airline_totals", slice_truth("f10_replay_cold"), "cold")


def test_handed_over_at_any_offset_of_kafka_the_tables_are_the_same(
    alone: Callable[[], str], tmp_path: Path
) -> None:
    """Holds promise 1: five times, Kafka's log begins where the archive ends, each time elsewhere."""
    records = given("departures")
    for cut in (1, 5_001, 13_154, 20_002, len(records) - 1):
        world = World(flights, tmp_path / f"cut{cut}", alone())
        world.folder.mkdir()
        world.send("departures", PARTITIONS, records[:cut])
        world.archive()
        world.trim("departures")
        world.send("departures", PARTITIONS, records[cut:])
        world.work()
        for table in ("plane_mean", "airline_totals"):
            assert agrees(world, table, slice_truth(TRUTHS[table])), (cut, table)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_over_kafka_give_sqls_tables(
    alone: Callable[[], str], tmp_path: Path, processes: int
) -> None:
    """Live, and as one group that replays together."""
    place = Place(tmp_path / "place", "apps.flights", log=alone())
    place.folder.mkdir()
    place.send("departures", SLICE / "departures.parquet", PARTITIONS)
    place.work(processes)
    for table in ("plane_mean", "airline_totals"):
        truth = slice_truth(TRUTHS[table])
        assert canonical_lines(truth.columns, place.rows(table)) == truth.lines, table
    live = place.hashes(["plane_mean", "airline_totals"])
    place.replay("again", "--from", "earliest", "--processes", str(processes))
    assert place.hashes(["plane_mean", "airline_totals"], "again") == live
