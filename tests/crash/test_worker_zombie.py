"""A worker stopped past its lease, between records or inside its transaction, and woken up after others took over (I4).

Nothing of its doing is visible then, and nobody was blocked for longer than the lease and 5 s.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.crash.shop_runs import EPOCHS, Shop, Worker

LEASE_S = 2.0
GRACE_S = 5.0


def follow_epochs(shop: Shop, worker: Worker) -> tuple[float, dict[int, float]]:
    """Watch a worker from its joining to its end.

    Return the longest time without any worker's commit, and when each task first committed.
    """
    worker.wait_passed("session.before_join")
    start_s = last_s = time.monotonic()
    longest_s, position = 0.0, shop.log.end_offset(EPOCHS, 0)
    first: dict[int, float] = {}
    while True:
        ended = worker.process.poll() is not None
        batch = shop.log.read(EPOCHS, 0, position)
        now_s = time.monotonic()
        if batch.next > position:
            position = batch.next
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
            for key in batch.keys:
                if key is not None and key.isdigit():
                    first.setdefault(int(key), now_s - start_s)
        if ended:
            return longest_s, first
        assert now_s - last_s < 30, worker.errors()[-4000:]
        time.sleep(0.01)


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")


@pytest.mark.parametrize(
    ("name", "count"), [("session.dispatch", 8), ("epoch.before_log", 2), ("epoch.between_log_and_store", 2)]
)
def test_a_worker_stopped_past_its_lease_can_do_no_harm_when_it_wakes_up(
    shop: Shop, capsys: pytest.CaptureFixture[str], name: str, count: int
) -> None:
    shop.append_fives(120)
    zombie = shop.start(f"{name}:{count}=stop", slow_s=0.005)
    zombie.wait_stopped()
    other = shop.start(slow_s=0.001)
    longest_s, first = follow_epochs(shop, other)
    assert other.wait() == 0, other.errors()
    shop.check_done(stores=False)
    before = shop.ends()
    zombie.process.send_signal(signal.SIGCONT)
    code = zombie.wait()
    if code == -signal.SIGKILL:
        # A heartbeat of its own, in another thread, was just inside a transaction: then it blocks, and is ended for that.
        assert f"ended process {zombie.pid} with SIGKILL" in other.errors()
    else:
        assert code == 0, zombie.errors()
        assert "joining again" in zombie.errors()
    assert shop.ends() == before, "the zombie wrote something"
    shop.check_done()
    taken_s = max(first.values())
    assert longest_s < LEASE_S + GRACE_S
    tell(
        capsys,
        f"stopped at {name}: the other's longest time without a commit {longest_s:.2f} s, all tasks taken over after "
        f"{taken_s:.2f} s (lease {LEASE_S} s); 0 records by the zombie",
    )


@pytest.mark.parametrize("name", ["log.in_transaction", "log.before_commit"])
def test_a_worker_stopped_inside_its_transaction_is_ended_by_those_who_wait(
    shop: Shop, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """It has the write lock: only its end sets the others free. What it had not committed is not there."""
    shop.append_fives(120)
    zombie = shop.start(f"{name}:3=stop", slow_s=0.005)
    zombie.wait_stopped()
    other = shop.start(slow_s=0.001)
    longest_s, _ = follow_epochs(shop, other)
    assert other.wait() == 0, other.errors()
    assert zombie.wait(5) == -signal.SIGKILL
    assert f"ended process {zombie.pid} with SIGKILL" in other.errors()
    shop.check_done()
    shop.check_cut()
    assert longest_s < LEASE_S + GRACE_S
    tell(capsys, f"stopped at {name}: ended by the other; longest time without a commit {longest_s:.2f} s")


def run_beside(shop: Shop, deeds: Sequence[str]) -> tuple[Worker, float, float]:
    """Run workers side by side until the first, which is told to stop itself, has stopped; then until all others end.

    Return the stopped one, the longest time without a commit since, and when the last task with work had one.
    """
    shop.append_fives(300)
    workers = [shop.start(deed, slow_s=0.02) for deed in deeds]
    workers[0].wait_stopped()
    longest_s, first = follow_epochs(shop, workers[1])
    for other in workers[1:]:
        assert other.wait() == 0, other.errors()
    return workers[0], longest_s, max(first.values())


@pytest.mark.parametrize("name", ["session.dispatch", "log.before_commit"])
def test_of_three_workers_one_stops_and_the_others_take_its_tasks(
    shop: Shop, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    zombie, longest_s, taken_s = run_beside(shop, [f"{name}:6=stop", "", ""])
    shop.check_done(stores=False)
    before = shop.ends()
    if zombie.process.poll() is None:
        zombie.process.send_signal(signal.SIGCONT)
    # Elsewhere too a heartbeat in another thread may have been inside a transaction when everything stopped.
    may_end = {-signal.SIGKILL} if name.startswith("log.") else {0, -signal.SIGKILL}
    assert zombie.wait() in may_end, zombie.errors()
    assert shop.ends() == before, "the zombie wrote something"
    shop.check_done()
    shop.check_cut()
    assert max(longest_s, taken_s) < LEASE_S + GRACE_S
    tell(
        capsys,
        f"one of three stopped at {name}: longest time without any commit {longest_s:.2f} s, the last of its tasks went "
        f"on after {taken_s:.2f} s; 0 records by the zombie",
    )


def test_a_worker_stopped_for_less_than_its_lease_goes_on_as_if_nothing_had_been(shop: Shop) -> None:
    shop.append(60)
    worker = shop.start("session.dispatch:5=stop", slow_s=0.002)
    worker.wait_stopped()
    worker.process.send_signal(signal.SIGCONT)
    assert worker.wait() == 0, worker.errors()
    assert "joining again" not in worker.errors()
    shop.check_done()
    shop.check_cut()


def test_workers_slower_than_their_lease_keep_their_tasks(shop: Shop, tmp_path: Path) -> None:
    """A group that takes longer than the lease is no reason to lose it: two workers must not take turns for ever."""
    seen = tmp_path / "seen"
    shop.append_fives(50)
    workers = [shop.start(slow_s=0.15, SHOP_SEEN=seen) for _ in range(2)]
    for worker in workers:
        assert worker.wait(60) == 0, worker.errors()
        assert "joining again" not in worker.errors()
    shop.check_done()
    shop.check_cut()
