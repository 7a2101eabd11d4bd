"""Archivers killed while workers run: the archive is the log, byte for byte, whatever was killed when (I13, I14)."""

from __future__ import annotations

import random
import signal

import pytest

from tests.crash.shop_runs import Shop
from tests.crash.test_archive_kill import POINTS

ARCHIVE = ("archive", "run", "--until-idle")


def kill_archivers(shop: Shop, kills_each: int, chance: random.Random) -> None:
    """Kill archivers at each step of a segment's commit, at a segment that differs, while a worker runs."""
    shop.append(60)
    worker = shop.start(command=("worker", "--epoch", "0.05"), slow_s=0.01)
    worker.wait_passed("epoch.committed")
    for at in range(kills_each):
        for name in POINTS:
            shop.append(10)
            archiver = shop.start(f"{name}:{1 + at if at < 2 else chance.randrange(1, 5)}", command=ARCHIVE)
            code = archiver.wait()
            assert code in (0, -signal.SIGKILL), archiver.errors()
            if code == 0:  # fewer segments than that were due; the first there is comes for certain
                shop.append(10)
                archiver = shop.start(f"{name}:1", command=ARCHIVE)
                assert archiver.wait() == -signal.SIGKILL, (name, archiver.errors())
            assert archiver.last() == name
            shop.kills[name] += 1
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.errors()
    shop.run()
    assert shop.start(command=ARCHIVE).wait() == 0
    shop.check_done()


@pytest.mark.parametrize("kills_each", [1, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_archivers_killed_while_a_worker_runs_leave_the_log_in_the_archive(
    shop: Shop, capsys: pytest.CaptureFixture[str], kills_each: int
) -> None:
    kill_archivers(shop, kills_each, random.Random(kills_each))
    archived = shop.check_archive(archived=True)
    with capsys.disabled():
        print(f"\n{sum(shop.kills.values())} kills of archivers, {archived} records: {dict(shop.kills)}")
