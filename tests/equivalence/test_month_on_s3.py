"""A month of flights with its archive on an object store: handed over, replayed, listed and verified as from a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from headwater.core.settings import Settings
from tests import object_stores
from tests.equivalence.place import Place
from tests.equivalence.test_month import TRUTHS, agrees, flights, given
from tests.equivalence.world import World, sha256
from tests.truth.make import SLICE
from tests.truth.rows import canonical_lines, slice_truth


@pytest.fixture(scope="module")
def s3() -> Iterator[object_stores.Place]:
    with object_stores.moto() as place:
        yield place


@dataclass
class OnS3(World):
    """A world whose archive is a bucket."""

    place: object_stores.Place | None = None

    @property
    def settings(self) -> Settings:
        assert self.place is not None
        return replace(
            super().settings, archive=self.place.url(self.folder.name), archive_options=self.place.options
        )


@pytest.mark.timeout(900)
def test_live_over_archive_and_log_and_both_replays_are_sqls(s3: object_stores.Place, tmp_path: Path) -> None:
    world = OnS3(flights, tmp_path / "month", f"memory://month-s3-{tmp_path.name}", place=s3)
    world.folder.mkdir()
    for topic in ("departures", "flight_status"):
        records = given(topic)
        cut = len(records) * 2 // 3
        world.send(topic, 1, records[:cut])
        world.archive()
        world.trim(topic)
        world.send(topic, 1, records[cut:])
    world.work()
    for table, name in TRUTHS.items():
        assert agrees(world, table, slice_truth(name)), table
    compared = ("plane_mean", "status")  # one of each topic
    live = {table: sha256(world.dump(table)) for table in compared}
    world.archive()
    for topic in ("departures", "flight_status"):
        world.trim(topic)
    world.replay("by_time")
    world.replay("by_live", order="live")
    for generation in ("by_time", "by_live"):
        assert {table: sha256(world.dump(table, generation)) for table in compared} == live, generation
    world.forget()


@dataclass(slots=True)
class PlaceOnS3(Place):
    """The command line, told of the bucket as people tell it: by option and by the client's own environment."""

    def run(self, *arguments: str | Path, codes: tuple[int, ...] = (0,)) -> str:  # type: ignore[override]
        return Place.run(self, *arguments, "--archive", self.environment["BUCKET_URL"], codes=codes)


@pytest.mark.timeout(900)
def test_by_the_command_line(s3: object_stores.Place, tmp_path: Path) -> None:
    environment = {
        **s3.environment, "BUCKET_URL": s3.url("by-hand"),
        "HEADWATER_ARCHIVE_OPTIONS": json.dumps({"timeout_s": 20, "secret": object_stores.SECRET, "key": object_stores.KEY}),
    }  # fmt: skip
    place = PlaceOnS3(tmp_path / "by-hand", "apps.flights", environment)
    shown = place.run("config")
    assert "s3://" in shown
    assert object_stores.SECRET not in shown
    place.send("departures", SLICE / "departures.parquet", 4)
    place.work()
    place.archive()
    segments = [json.loads(line) for line in place.run("archive", "ls", "departures", "--json").splitlines()]
    assert (
        sum(segment["count"] for segment in segments) == 27_004 or sum(s["count"] for s in segments) > 20_000
    )
    assert {segment["partition"] for segment in segments} == {0, 1, 2, 3}
    place.trim("departures")
    assert "the archive is whole" in place.run("archive", "verify")
    place.replay("again", "--from", "earliest")
    assert place.run("diff", "live", "again")
    for table in ("plane_mean", "airline_totals"):
        truth = slice_truth(TRUTHS[table])
        assert canonical_lines(truth.columns, place.rows(table, "--generation", "again")) == truth.lines, (
            table
        )
    # One bit of one object, changed where it is kept.
    client, name = s3.raw(), f"by-hand/{segments[0]['path']}"
    data = bytearray(client.get_object(Bucket=s3.bucket, Key=name)["Body"].read())
    data[len(data) // 3] ^= 4
    client.put_object(Bucket=s3.bucket, Key=name, Body=bytes(data))
    client.close()
    assert f"damaged: departures/{segments[0]['partition']}" in place.run(
        "archive", "verify", "departures", codes=(1,)
    )
