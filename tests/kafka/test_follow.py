"""A replay that follows: from the archive over to Kafka at the exact offset, and on with what comes."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headwater.core.errors import UnknownNameError
from headwater.log.kafka import KafkaLog
from tests.equivalence.place import ROOT
from tests.equivalence.world import Given, World
from tests.kafka.counting import NAME, counting


@pytest.mark.broker
@pytest.mark.timeout(300)
def test_a_replay_that_follows_goes_from_the_archive_over_to_kafka_and_on(
    broker: str, tmp_path: Path
) -> None:
    """Holds promise 1: half of the history is only in the archive, more comes while the replay runs."""
    name = f"follow{secrets.token_hex(3)}"
    world = World(lambda: counting(name), tmp_path, f"kafka://{broker}")

    def send(first: int, count: int) -> None:
        records = [Given(b"k%d" % (n % 7), b"%d" % n, 1_000_000 + n) for n in range(first, first + count)]
        world.send(f"{name}-in", 4, records)

    send(0, 300)
    world.archive()
    world.trim(f"{name}-in")
    send(300, 200)
    replay = subprocess.Popen(
        [
            sys.executable, "-m", "headwater", "-A", "tests.kafka.counting:app", "--log", world.log_url,
            "--archive", world.settings.archive, "--state", f"{tmp_path}/state",
            "replay", "--from", "earliest", "--follow", "--as", "again",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "framework"), str(ROOT)]), NAME: name},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _until_counted(world, 500)
        send(500, 100)
        _until_counted(world, 600)
    finally:
        replay.send_signal(signal.SIGTERM)
        assert replay.wait(30) == 0
    assert {row["key"]: row["value"] for row in map(json.loads, world.dump("totals", "again"))} == {
        f"k{k}": {"n": len(range(k, 600, 7)), "sum": sum(range(k, 600, 7))} for k in range(7)
    }
    log = KafkaLog(world.log_url)
    assert log.positions(f"{name}.live") == {}, "the live group is left alone"
    log.close()


def _until_counted(world: World, count: int) -> None:
    end_s = time.monotonic() + 120
    found = 0
    while found < count:
        assert time.monotonic() < end_s, f"{found} of {count} were counted"
        time.sleep(0.5)
        try:
            found = sum(json.loads(line)["value"]["n"] for line in world.dump("totals", "again"))
        except UnknownNameError:
            continue  # the replay has not begun yet
