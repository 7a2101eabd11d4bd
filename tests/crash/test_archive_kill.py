"""An archiver process killed, stopped or raced at each step of a segment's commit leaves the archive exact (I13, I14).

Real processes over an embedded log and a folder. Each is killed by itself with SIGKILL at a named point, so that the
step is certain; a fork server makes them, so that a kill costs some 20 ms.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import psutil
import pytest

from headwater.archive import open_archive
from headwater.archive.local import TEMPORARY
from headwater.archive.writer import Archiver
from headwater.core.batch import Append
from headwater.log import open_log
from headwater.log.interface import Log
from tests.unit.archive.rows import log_rows, rows_of

POINTS = (
    "archive.list",
    "archive.read",
    "archive.encoded",
    "archive.half_written",
    "archive.written",
    "archive.synced",
    "archive.linked",
    "archive.unlinked",
    "archive.folder_synced",
    "archive.put",
)
KILLS_EACH = 5
WAIT_S = 60


def _signal_at(name: str, count: int, number: signal.Signals) -> Callable[[str], None]:
    passes: Counter[str] = Counter()

    def point(passed: str) -> None:
        passes[passed] += 1
        if passed == name and passes[name] == count:
            os.kill(os.getpid(), number)

    return point


def _archive(folder: str, name: str, count: int, number: int, rounds: int) -> None:
    """Run in a process of its own: archive all there is, some rounds of it, with a signal at the count-th pass."""
    log = open_log(f"file://{folder}/log")
    archive = open_archive(f"file://{folder}/archive", log.log_id)
    archiver = Archiver(
        log, archive, ["orders"], roll_rows=4, crash=_signal_at(name, count, signal.Signals(number))
    )
    for _ in range(rounds):
        archiver.until_idle()
    archive.close()
    log.close()


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["headwater.archive.writer", "headwater.archive.archive", "headwater.log.embedded", __name__]
    )
    return context


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = open_log(f"file://{tmp_path}/log")
    made.create_topic("orders", 2)
    yield made
    made.close()


def _start(
    context: ForkServerContext,
    folder: Path,
    name: str = "",
    count: int = 0,
    *,
    number: int = signal.SIGKILL,
    rounds: int = 1,
) -> ForkServerProcess:
    process = context.Process(target=_archive, args=(str(folder), name, count, number, rounds))
    process.start()
    return process


def _finish(process: ForkServerProcess) -> int:
    process.join(WAIT_S)
    code = process.exitcode
    assert code is not None, "the archiver hangs"
    process.close()
    return code


def _append(log: Log, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for partition in (0, 1):
        log.append(
            [
                Append(
                    "orders",
                    partition,
                    [chance.randrange(10**9) for _ in range(count)],
                    [chance.choice([None, b"", b"k%d" % n]) for n in range(count)],
                    [chance.choice([None, b"", chance.randbytes(20)]) for _ in range(count)],
                )
            ]
        )


def _check(log: Log, folder: Path, *, all_of_it: bool) -> None:
    """The archive is a true prefix of the log, or all of it, and nothing in it is wrong."""
    archive = open_archive(f"file://{folder}/archive", log.log_id)
    if all_of_it:
        assert list(archive.verify()) == []
    for partition in (0, 1):
        expected, position = log_rows(log, "orders", partition), 0
        for segment in archive.segments("orders", partition):
            assert segment.base == position
            position = segment.next
        assert rows_of(archive.read("orders", partition, 0)) == expected[:position]
        if all_of_it:
            assert position == len(expected)
    archive.close()


def test_an_archiver_killed_at_each_step_leaves_an_exact_archive(
    processes: ForkServerContext, log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kills: Counter[str] = Counter()
    for seed in range(KILLS_EACH):
        for name in POINTS:
            _append(log, 9, seed)
            # Later rounds hit later segments and the other partition; the listing is read once for each partition.
            count = 1 + (seed % 2 if name == "archive.list" else seed)
            code = _finish(_start(processes, tmp_path, name, count))
            assert code == -signal.SIGKILL, (name, seed, code)
            kills[name] += 1
            _check(log, tmp_path, all_of_it=False)
    assert min(kills[name] for name in POINTS) == KILLS_EACH
    assert _finish(_start(processes, tmp_path)) == 0
    _check(log, tmp_path, all_of_it=True)
    left = [name for _, _, names in os.walk(tmp_path / "archive") for name in names if name.startswith(".")]
    assert left == [], "a later archiver collects what the killed ones left"
    with capsys.disabled():
        print(f"\nkills of the archiver: {sum(kills.values())}: {dict(kills)}")


def test_two_archivers_that_race_and_die_make_one_chain(
    processes: ForkServerContext, log: Log, tmp_path: Path
) -> None:
    chance = random.Random(7)
    for seed in range(8):
        _append(log, 30, seed)
        name = chance.choice(POINTS)
        racers = [
            _start(processes, tmp_path, rounds=3),
            _start(processes, tmp_path, name, chance.randrange(1, 6), rounds=3),
        ]
        _append(log, 10, seed + 100)
        codes = [_finish(racer) for racer in racers]
        assert codes[0] == 0
        assert codes[1] in (0, -signal.SIGKILL)
        _check(log, tmp_path, all_of_it=False)
    assert _finish(_start(processes, tmp_path)) == 0
    _check(log, tmp_path, all_of_it=True)


@pytest.mark.parametrize("name", ["archive.read", "archive.encoded", "archive.synced", "archive.linked"])
def test_an_archiver_that_was_stopped_can_do_no_harm_when_it_wakes_up(
    processes: ForkServerContext, log: Log, tmp_path: Path, name: str
) -> None:
    """I4: a zombie stopped between any two steps finds the name taken, and goes on from there."""
    _append(log, 10, 1)
    zombie = _start(processes, tmp_path, name, 3, number=signal.SIGSTOP)
    assert zombie.pid is not None
    _wait_until_stopped(zombie.pid)
    _append(log, 10, 2)
    assert _finish(_start(processes, tmp_path)) == 0
    _check(log, tmp_path, all_of_it=True)
    _append(log, 3, 3)
    os.kill(zombie.pid, signal.SIGCONT)
    assert _finish(zombie) == 0
    assert _finish(_start(processes, tmp_path)) == 0
    _check(log, tmp_path, all_of_it=True)
    left = [
        file for _, _, names in os.walk(tmp_path / "archive") for file in names if file.startswith(TEMPORARY)
    ]
    assert left == []


def _wait_until_stopped(pid: int) -> None:
    process, deadline = psutil.Process(pid), time.monotonic() + WAIT_S
    while process.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "the archiver never came to the point"
        time.sleep(0.005)


def test_crash_points_of_the_archiver_are_reached_by_the_environment(log: Log, tmp_path: Path) -> None:
    """The same points, by the setting that the crash tests of whole workers use."""
    _append(log, 9, 1)
    program = (
        "import sys\n"
        "from headwater.archive import open_archive\n"
        "from headwater.archive.writer import Archiver\n"
        "from headwater.log import open_log\n"
        "log = open_log(f'file://{sys.argv[1]}/log')\n"
        "Archiver(log, open_archive(f'file://{sys.argv[1]}/archive', log.log_id), ['orders']).until_idle()\n"
    )
    counts = tmp_path / "passed"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HEADWATER_CRASH": "archive.linked:2",
        "HEADWATER_CRASH_COUNT": str(counts),
    }
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, timeout=WAIT_S)
    assert killed.returncode == -signal.SIGKILL
    passed = counts.read_text().split()
    assert passed[-1] == "archive.linked"
    assert passed.count("archive.linked") == 2
    del environment["HEADWATER_CRASH"]
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, timeout=WAIT_S, check=True
    )
    assert set(POINTS) <= set(counts.read_text().split())
    archive = open_archive(f"file://{tmp_path}/archive", log.log_id)
    assert rows_of(archive.read("orders", 0, 0)) == log_rows(log)
    archive.close()


def test_archivers_in_one_process_do_not_take_each_others_crash_points(log: Log, tmp_path: Path) -> None:
    _append(log, 5, 1)
    passed: list[list[str]] = [[], []]
    for which in range(2):
        archive = open_archive(f"file://{tmp_path}/archive", log.log_id)
        Archiver(log, archive, ["orders"], crash=passed[which].append).until_idle()
        archive.close()
    assert "archive.put" in passed[0]
    assert "archive.put" not in passed[1]
