"""A replay from an object store beside the same replay from local files: `headwater replay` into a keyed table.

The store is versitygw on loopback (`GOBIN=DIR go install github.com/versity/versitygw/cmd/versitygw@latest`), so the client's and
the server's work are on this machine's cores as well. Both archives hold the same records, written by Headwater's archiver. Printed
beside it: reading and decoding alone, without an engine, by obstore and by s3fs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.figure import Rates, Ratio
from benchmarks.loading import load_log
from benchmarks.running import Place
from headwater.archive import open_archive
from headwater.log import open_log
from tests import object_stores

GOAL = 0.70


@dataclass(frozen=True, slots=True)
class Bucket(Place):
    """A place whose archive is elsewhere."""

    url: str = ""

    @property
    def archive(self) -> str:
        """The archive's URL."""
        return self.url


def read_alone(url: str, options: dict[str, Any], log_id: str, records: int, rates: Rates) -> None:
    """Read and decode all partitions, one after the other."""
    archive = open_archive(url, log_id, options)
    began, began_s = time.process_time(), time.perf_counter()
    found = 0
    for partition in range(data.PARTITIONS):
        for batch in archive.read("clicks", partition, 0):
            found += len(batch.values)
    if found != records:
        raise SystemExit(f"{found} of {records} records were read from {url}")
    rates.add(records, time.perf_counter() - began_s, time.process_time() - began)
    archive.close()


def main() -> int:
    """Print the lines; exit code 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versitygw", required=True, help="the path of a versitygw binary")
    parser.add_argument("--records", type=int, default=data.RECORDS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    local, s3 = Rates(), Rates()
    alone = {name: Rates() for name in ("a folder", "obstore", "s3fs")}
    with (
        tempfile.TemporaryDirectory(prefix="headwater-bench-") as name,
        object_stores.versitygw(str(Path(options.versitygw).absolute())) as server,
    ):
        os.environ.update(server.environment)  # for this process's own clients; the commands inherit it
        environment = {"SPEND_HISTORY": "none"}
        here = Place(Path(name) / "origin", environment=environment)
        there = Bucket(here.folder, environment=environment, url=server.url("archive"))
        load_log(here.log, options.records)
        here.run("archive", "run", "--until-idle")
        there.run("archive", "run", "--until-idle")
        here.run("trim", "clicks")
        log = open_log(here.log)
        log_id = log.log_id
        log.close()
        for turn in range(options.rounds):
            for place, rates in ((here, local), (there, s3)):
                generation = f"again{turn}{'s3' if place is there else ''}"
                report = place.timed("replay", "--from", "earliest", "--as", generation)
                data.check(place.table("spend", "--generation", generation), options.records)
                rates.add(options.records, report["seconds"], report["cpu_seconds"])
            read_alone(here.archive, {}, log_id, options.records, alone["a folder"])
            read_alone(there.archive, {"accelerate": True}, log_id, options.records, alone["obstore"])
            read_alone(there.archive, {"accelerate": False}, log_id, options.records, alone["s3fs"])
    met = Ratio("replay from versitygw, beside local files", s3, local, GOAL).show()
    for client in ("obstore", "s3fs"):
        Ratio(f"reading alone by {client}, beside local files", alone[client], alone["a folder"], None).show()
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
