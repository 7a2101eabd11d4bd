"""SIGTERM: what is begun is finished and committed, the group is left, exit code 0 within 10 s, hang or no hang (I26)."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.crash.shop_runs import Shop, Worker, wait_until

LIVE = ("worker", "--epoch", "0.05")
STOP_S = 10.0


def stop(worker: Worker, number: signal.Signals = signal.SIGTERM) -> float:
    """Stop a worker; return how long it took."""
    start_s = time.monotonic()
    worker.process.send_signal(number)
    code = worker.wait(30)
    took_s = time.monotonic() - start_s
    assert code == 0, (code, worker.errors()[-4000:])
    assert took_s < STOP_S, worker.errors()[-4000:]
    assert "Traceback" not in worker.errors()
    return took_s


def workers_of(worker: Worker) -> list[psutil.Process]:
    """Return the processes it has started as workers; what libraries start while they are imported (`file`) is none."""
    found = []
    for child in psutil.Process(worker.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "worker" in child.cmdline():
                found.append(child)
    return found


def seen(path: Path) -> Counter[str]:
    return Counter(path.read_text().splitlines() if path.exists() else ())


def wait_for_records(path: Path, more_than: int, worker: Worker) -> None:
    wait_until(lambda: sum(seen(path).values()) > more_than, "some records", worker)


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_stop_nothing_is_done_again(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """I26: every record is handed out once over all runs, those that fail as often as they are retried."""
    shop.append(150)
    path = tmp_path / "seen"
    took = []
    for _ in range(2):
        least = sum(seen(path).values()) + 20
        worker = shop.start(command=LIVE, slow_s=0.01, SHOP_SEEN=path)
        wait_for_records(path, least, worker)
        took.append(stop(worker, number))
        assert shop.log.members("shop.live") == 0
        shop.check_cut()
    shop.run(SHOP_SEEN=path)
    shop.check_done()
    orders = [g for g in shop.given if g.value[:1] == b"{"]
    found = seen(path)
    assert len(found) == len(orders)
    for place, times in found.items():
        assert times == (2 if int(place.split()[1]) % 17 == 5 else 1), place
    tell(capsys, f"{number.name}: gone after {', '.join(f'{s:.2f}' for s in took)} s; 0 records done again")


def test_an_agent_that_waits_for_ever_loses_its_epoch_and_the_worker_ends_well(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.append(90)
    path = tmp_path / "seen"
    worker = shop.start(command=LIVE, SHOP_SEEN=path, SHOP_HANG_AT=41)
    wait_until(lambda: any(line.endswith(" 41") for line in seen(path)), "the hang", worker)
    took_s = stop(worker)
    assert "does not come to rest (agents: bill); its open epoch is aborted" in worker.errors()
    shop.check_cut()
    shop.run()
    shop.check_done()
    tell(capsys, f"an agent that waits for ever: gone after {took_s:.2f} s")


@pytest.mark.parametrize("how", ["sleep", "compute"])
def test_an_agent_that_blocks_the_process_loses_its_epoch_and_the_worker_ends_well(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """One record blocks for a minute or more: the event loop sees nothing for far longer than 10 s.

    Where it computes, in one call of C, no handler of the signal runs either.
    """
    shop.append(90)
    path = tmp_path / "seen"
    worker = shop.start(command=LIVE, SHOP_SEEN=path, SHOP_BLOCK_AT=41, SHOP_BLOCK_S=60, SHOP_BLOCK_HOW=how)
    wait_until(lambda: any(int(line.split()[1]) >= 41 for line in seen(path)), "the hang", worker)
    took_s = stop(worker)
    assert "9.5 s after it was told to stop, an agent blocks the process" in worker.errors()
    shop.check_cut()
    shop.run()
    shop.check_done()
    tell(capsys, f"an agent that blocks at a record ({how}): gone after {took_s:.2f} s")


def test_a_stop_of_several_processes_ends_all_of_them(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.append(150)
    worker = shop.start(command=(*LIVE, "--processes", "3"), slow_s=0.02)
    worker.wait_passed("epoch.committed", 3)
    wait_until(lambda: shop.log.members("shop.live") == 3, "three members", worker)
    children = psutil.Process(worker.pid).children(recursive=True)
    assert len(children) == 3
    took_s = stop(worker)
    assert not [child for child in children if child.is_running()]
    assert shop.log.members("shop.live") == 0
    shop.check_cut()
    shop.run()
    shop.check_done()
    tell(capsys, f"three processes: all gone after {took_s:.2f} s")


@pytest.mark.parametrize("wait_s", [0.0, 0.3, 0.8])
def test_a_stop_while_processes_start_leaves_none_behind(shop: Shop, wait_s: float) -> None:
    worker = shop.start(command=(*LIVE, "--processes", "3"))
    wait_until(lambda: len(workers_of(worker)) > 0, "a child", worker)
    time.sleep(wait_s)
    children = workers_of(worker)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait(STOP_S) == 0, worker.errors()
    _gone, alive = psutil.wait_procs(children, timeout=3)
    for child in alive:
        child.kill()
    assert alive == []
    shop.append(30)
    shop.run()
    shop.check_done()


def test_a_full_disk_is_told_and_nothing_is_lost_once_there_is_space(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """I19, by a limit on the size of files: no acknowledgement of what isn't durable, and no repair by hand."""
    shop.append(300)
    limit = (shop.folder / "log" / "log.sqlite-wal").stat().st_size + 600_000
    worker = shop.start(slow_s=0.001, file_bytes_max=limit)
    assert worker.wait() == 1, worker.errors()[-4000:]
    errors = worker.errors()
    assert "Traceback" not in errors
    told = [line for line in errors.splitlines() if line.startswith("headwater: ")]
    assert len(told) == 1, errors
    assert "free space" in told[0]
    assert worker.passed()["epoch.committed"] >= 1, "some of it went well before"
    shop.check_cut()
    shop.run()
    shop.check_done()
    shop.check_archive()
    tell(capsys, f"full disk: {told[0]}")
