"""Workers with operators killed at every named point: their states, results, windows and late records are as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.archive import open_archive
from headwater.core.batch import Append
from headwater.core.partitioner import partition_of
from headwater.engine.control import Control
from headwater.engine.history import dump_table
from headwater.log import open_log
from tests.crash.shop_runs import POINTS, ROOT
from tests.crash.shop_worker import fork

CHUNK = 40
OUTPUTS = ("counted", "sorted", "closed", "copies", "losses")


class Place:
    """A log in a folder, and workers over it, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = open_log(f"file://{folder}/log")
        self.log.create_topic("orders", 2)
        self.count = 0
        self.workers = 0

    def append(self, count: int) -> None:
        """Append orders: event times jump back now and then, some orders fail, numbers of users come again."""
        for number in range(self.count, self.count + count):
            chance = random.Random(number)
            key = b"u%d" % chance.randrange(60)
            kind = "fail" if number % 19 == 7 else "plain"
            value = {"number": number, "item": f"i{chance.randrange(5)}", "kind": kind}
            time_ms = 1_000 + number * 10 - chance.choice([0, 0, 0, 30, 120])
            data = json.dumps(value).encode()
            self.log.append([Append("orders", partition_of(key, 2), [time_ms], [key], [data])])
        self.count += count

    def run(self, deeds: str = "", slow_s: float = 0.0) -> bool:
        """Run a worker to its end; tell whether it was killed."""
        self.workers += 1
        variables = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
        variables |= {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HEADWATER_LOG": f"file://{self.folder}/log",
            "HEADWATER_ARCHIVE": f"file://{self.folder}/archive",
            "HEADWATER_STATE": str(self.folder / "state"),
            "HEADWATER_CRASH": deeds,
            "SHOP_SLOW_S": str(slow_s),
        }
        errors = self.folder / f"errors-{self.workers}"
        command = ["-A", "tests.crash.derived", "worker", "--until-idle", "--epoch", "0.05"]
        code = fork(command, variables, ROOT, errors, None).wait(90)
        assert code in (0, -signal.SIGKILL), errors.read_text()[-4000:]
        return code != 0

    def found(self) -> dict[str, Any]:
        """Return all that came of the orders: outputs by key, windows, dead letters."""
        found: dict[str, Any] = {}
        for topic in OUTPUTS:
            records = [
                (key, value, time)
                for partition in range(2)
                for key, value, time in self._records(topic, partition)
            ]
            if topic in ("counted", "sorted"):
                # One task makes them: their order is the oracle too.
                found[topic] = {k: [r[1:] for r in records if r[0] == k] for k in {r[0] for r in records}}
            else:
                found[topic] = Counter(records)
        archive = open_archive(f"file://{self.folder}/archive", self.log.log_id)
        live = Control(self.log, archive, "derived").generation("live")
        found["windows"] = list(dump_table(self.log, archive, "derived", live, "windows"))
        found["dead"] = Counter(record[:3] for record in self.dead())
        archive.close()
        return found

    def dead(self) -> list[tuple[Any, ...]]:
        """Return dead letters with their headers."""
        batch = self.log.read("derived.live.dead", 0, 0, bytes_max=1 << 30)
        headers = [batch.headers_at(at) for at in range(len(batch))]
        return list(zip(batch.keys, batch.values, batch.timestamps, headers, strict=True))

    def _records(self, topic: str, partition: int) -> Iterator[tuple[Any, ...]]:
        position = 0
        while (batch := self.log.read(topic, partition, position)).next > position:
            yield from zip(batch.keys, batch.values, batch.timestamps, strict=True)
            position = batch.next


@pytest.mark.timeout(300)
def test_operators_killed_at_each_point_give_what_an_uninterrupted_run_gives(tmp_path: Path) -> None:
    torn, calm = Place(tmp_path / "torn"), Place(tmp_path / "calm")
    kills = 0
    chance = random.Random(6)
    for name in POINTS[::3]:
        torn.append(CHUNK)
        kills += torn.run(f"{name}:{chance.choice([1, 2])}", slow_s=0.001)
    torn.append(CHUNK)
    while torn.run():
        pass
    calm.append(torn.count)
    assert not calm.run()
    there, here = calm.found(), torn.found()
    assert kills >= len(POINTS[::3]) - 1, "a point may not be passed twice"
    for name, expected in there.items():
        assert here[name] == expected, name
    # What must be there at all, so that equal isn't empty.
    orders = sum(map(len, there["counted"].values()))
    failed = sum(b'"agent":"count"' in dict(headers)["hw.dead"] for *_, headers in torn.dead())
    assert orders + failed == torn.count
    assert there["losses"].total() > 10
    assert sum('"final":true' in line for line in there["windows"]) > 10
    torn.log.close()
    calm.log.close()
