"""The full year of flights through the command line only: live, replayed, handed over and as of, against SQL.

    python -m tests.equivalence.year DIR [--partitions 1] [--folder WORK] [--kafka]     DIR: what the fetch command wrote

`--kafka`: over a broker that this starts, which is emptied for each place; with 1, 2 and 4 processes instead of 1 and 3.

Prints each command with its seconds, each comparison with its outcome, and ends with code 1 where one fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.equivalence.place import Place
from tests.equivalence.small_batches import BUFFER_BYTES, GROUP_RECORDS
from tests.kafka.cluster import Cluster
from tests.kafka.shared import empty
from tests.truth.make import truths_of
from tests.truth.rows import YEAR_AS_OF, YEAR_START, Truth, canonical_lines

APP = "apps.flights"
LATE_APP = "apps.flights.late"
SMALL_APP = "tests.equivalence.small_batches:app"
TOPICS = ("departures", "flight_status")
TABLES = ("plane_mean", "airline_totals", "status")
TRUTHS = {"plane_mean": "f02_plane_mean", "airline_totals": "f10_replay_warm", "status": "f12_status_final"}
HANDOVERS = 5
INSTANTS = 20


@dataclass(slots=True)
class Year:
    """One layout's run over the year: where it works, what it compares with, and what it has found."""

    streams: Path
    folder: Path
    partitions: int
    note: Callable[[str], None] = print
    truths: Mapping[str, Truth] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    compared: int = 0
    kafka: str = ""
    """The URL of a broker of this run's own, or nothing for a log in each place's folder."""

    def place(self, name: str, app: str = APP) -> Place:
        """Return a place of this layout. On a broker there is one at a time: topics have the same names in each."""
        folder = self.folder / f"p{self.partitions}-{name}"
        folder.mkdir(parents=True)
        if self.kafka:
            empty(self.kafka, *TOPICS, "flights")
        return Place(folder, app, note=self.note, log=self.kafka)

    def check(self, what: str, same: bool) -> None:
        """Note a comparison."""
        self.compared += 1
        self.note(f"{'  equal' if same else 'DIFFERS'}    p{self.partitions}: {what}")
        if not same:
            self.failures.append(f"{self.partitions} partitions: {what}")

    def check_rows(self, what: str, truth: Truth, rows: list[dict[str, Any]]) -> None:
        """Compare a table's values with a truth, on the truth's columns."""
        found = canonical_lines(truth.columns, rows)
        self.check(f"{what}: {len(found):,} rows, SQL has {len(truth.lines):,}", found == truth.lines)

    def check_hashes(self, what: str, hashes: Mapping[str, str]) -> None:
        """Compare dumps with the first that this layout gave."""
        if not self.expected:
            self.expected.update(hashes)
        for table, found in hashes.items():
            self.check(f"{what}: {table} has SHA-256 {found[:16]}", found == self.expected[table])

    # What is shown

    def run(self) -> None:
        """Show all of it."""
        self.truths = truths_of(self.streams, as_of=YEAR_AS_OF, start=YEAR_START)
        single = self.live(1)
        self.cold(single)
        self.as_of(single)
        for processes in (2, 4) if self.kafka else (3,):
            several = self.live(processes)
        self.replays(several)
        self.handovers()
        self.late()

    def live(self, processes: int) -> Place:
        """Work the year live; the tables are SQL's."""
        place = self.place(f"live{processes}")
        for topic in TOPICS:
            place.send(topic, self.streams / f"{topic}.parquet", self.partitions)
        began_s = time.perf_counter()
        place.work(processes)
        taken_s = time.perf_counter() - began_s
        records = sum(pq.read_metadata(self.streams / f"{topic}.parquet").num_rows for topic in TOPICS)
        self.note(
            f"{records / taken_s:,.0f} records/s  live, {processes} processes, {self.partitions} partitions"
        )
        for table, name in TRUTHS.items():
            self.check_rows(
                f"live, {processes} processes: {table} is {name}", self.truths[name], place.rows(table)
            )
        self.check_hashes(f"live, {processes} processes", place.hashes(TABLES))
        place.archive()
        return place

    def replays(self, place: Place) -> None:
        """Replay everything in both orders, with other processes, batch sizes and hash seeds."""
        small = place.with_app(SMALL_APP, PYTHONHASHSEED="1", **{BUFFER_BYTES: "65536", GROUP_RECORDS: "777"})
        odd = place.with_app(SMALL_APP, PYTHONHASHSEED="4242", **{GROUP_RECORDS: "3301"})
        for name, through, options in (
            ("time", place, ("--order", "time")),
            ("live_order", place, ("--order", "live")),
            ("time_small", small, ("--order", "time", "--epoch", "0.2")),
            ("live_small", small, ("--order", "live", "--epoch", "0.2")),
            ("time_odd3", odd, ("--order", "time", "--processes", "3")),
            ("live_odd3", odd, ("--order", "live", "--processes", "3")),
        ):
            through.replay(name, "--from", "earliest", *options)
            self.check_hashes(f"replay {name} {' '.join(options)}", place.hashes(TABLES, name))

    def cold(self, place: Place) -> None:
        """Replay from October with empty tables."""
        place.replay("october", "--from", f"{YEAR_START}Z")
        rows = place.rows("airline_totals", "--generation", "october")
        self.check_rows("replay from October is f10_replay_cold", self.truths["f10_replay_cold"], rows)

    def as_of(self, place: Place) -> None:
        """Ask for tables as they stood: in mid-year, and on one partition at other instants too."""
        seen = self.truths["f06_planes_seen_asof"]
        rows = place.rows("plane_mean", "--as-of", f"{YEAR_AS_OF}Z")
        columns = ("tailnum", "n", "last_seen")
        found = canonical_lines(columns, ({**row, "last_seen": row["last_ts"]} for row in rows))
        self.check(
            f"plane_mean as of {YEAR_AS_OF}Z agrees with f06: {len(found):,} planes",
            found == _projected(seen, columns),
        )
        if self.partitions > 1:
            return
        for instant in self._instants():
            known = truths_of(self.streams, as_of=YEAR_AS_OF, start=YEAR_START, until=instant)
            for table in ("plane_mean", "airline_totals"):
                rows = place.rows(table, "--as-of", f"{instant}Z")
                self.check_rows(f"{table} as of {instant}Z is SQL's", known[TRUTHS[table]], rows)

    def _instants(self) -> Iterator[str]:
        """Yield instants over the year: half are the very time of a departure, the others 1 ms before one."""
        times = pq.read_table(self.streams / "departures.parquet", columns=["timestamp"])["timestamp"]
        for number in range(INSTANTS):
            at: datetime = times[(2 * number + 1) * len(times) // (2 * INSTANTS) + 17 * number].as_py()
            instant = at - timedelta(milliseconds=number % 2)
            yield instant.isoformat(timespec="milliseconds")

    def handovers(self) -> None:
        """Hand over at several offsets per partition, with the log trimmed to the archive's end."""
        for number in range(1, HANDOVERS + 1):
            place = self.place(f"handover{number}")
            for topic in TOPICS:
                records = pq.read_table(self.streams / f"{topic}.parquet")
                cut = len(records) * number // (HANDOVERS + 1) + 7 * number
                head, tail = place.folder / f"{topic}-head.parquet", place.folder / f"{topic}-tail.parquet"
                pq.write_table(records.slice(0, cut), head)
                pq.write_table(records.slice(cut), tail)
                place.send(topic, head, self.partitions)
            place.archive()
            for topic in TOPICS:
                place.trim(topic)
                place.send(topic, place.folder / f"{topic}-tail.parquet", self.partitions)
                ranges = place.ranges(topic)[0]["ranges"]
                where = ", ".join(str(part["log"][0]) for part in ranges)
                self.check(
                    f"handover {number}: {topic}'s archive ends where its log starts: {where}",
                    all(part["archive"][1] == part["log"][0] and part["archive"][0] == 0 for part in ranges),
                )
            if number == 1:
                place.work()
                self.check_hashes(f"handover {number}, live", place.hashes(TABLES))
            place.replay("over", "--from", "earliest")
            self.check_hashes(f"handover {number}, replayed", place.hashes(TABLES, "over"))

    def late(self) -> None:
        """Work a topic that is out of order: the last value by offset stays, live and replayed."""
        place = self.place("late", LATE_APP)
        place.send("departures_late", self.streams / "departures_late.parquet", self.partitions)
        place.work()
        self.check_rows(
            "late_last is SQL's last by offset", self.truths["late_last"], place.rows("late_last")
        )
        expected = place.hashes(["late_last"])
        place.archive()
        place.trim("departures_late")
        for order in ("time", "live"):
            name = f"{order}_order"
            place.replay(name, "--from", "earliest", "--order", order)
            self.check(f"late_last replayed in {order} order", place.hashes(["late_last"], name) == expected)


def _projected(truth: Truth, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return a truth's rows with fewer columns."""
    return canonical_lines(columns, (json.loads(line) for line in truth.lines))


def show(
    streams: Path, folder: Path, partitions: int, note: Callable[[str], None] = print, *, kafka: str = ""
) -> Year:
    """Run one layout, and return what it found."""
    began_s = time.perf_counter()
    year = Year(streams, folder, partitions, note, kafka=kafka)
    year.run()
    note(
        f"{partitions} partitions: {year.compared} comparisons, {len(year.failures)} differ, "
        f"{time.perf_counter() - began_s:.0f} s"
    )
    return year


def main() -> None:
    """Show it for the layouts asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.equivalence.year")
    parser.add_argument("streams", type=Path, metavar="DIR", help="the year's streams")
    parser.add_argument(
        "--partitions", type=int, action="append", metavar="N", help="a layout (else 1 and 4; over Kafka 4)"
    )
    parser.add_argument("--folder", type=Path, metavar="WORK", help="where to work (else a temporary folder)")
    parser.add_argument("--kafka", action="store_true", help="over a broker (needs Java and Maven)")
    options = parser.parse_args()
    failures: list[str] = []

    def note(line: str) -> None:
        print(line, flush=True)

    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        kafka, layouts = "", [1, 4]
        if options.kafka:
            cluster = ends.enter_context(closing(Cluster(Path(folder) / "cluster")))
            cluster.start()
            kafka, layouts = cluster.url, [4]
        for partitions in options.partitions or layouts:
            year = show(options.streams, options.folder or Path(folder), partitions, note, kafka=kafka)
            failures += year.failures
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
