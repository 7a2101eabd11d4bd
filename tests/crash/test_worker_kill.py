"""Workers killed at every named point and at random times: nothing lost, nothing doubled, one cut of everything.

I1, I2, I6, I7, I14, I20. After each kill what the log holds is compared with the oracle at the very positions that are
in it; at the end with an uninterrupted run too, and the archive with the log. The full size is marked slow.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.crash import oracle
from tests.crash.shop_runs import PHASES, POINTS, REBALANCE, Shop, wait_until

CHUNK = 30
SLOW_S = 0.002
LEASE_S = 0.4
"""Shorter than a worker takes to start, so that a killed one's tasks are free by then."""


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.lease_s = LEASE_S
    return shop


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")


def by_phase(kills: Counter[str]) -> dict[str, int]:
    phases = {phase: sum(kills[name] for name in names) for phase, names in PHASES.items()}
    return phases | {"rebalance": sum(kills[name] for name in REBALANCE)}


def check_against_an_uninterrupted_run(shop: Shop, folder: Path) -> None:
    """The same input through one worker that nobody touches gives the same."""
    calm = Shop(folder)
    try:
        calm.append(len(shop.given))
        assert calm.given == shop.given
        calm.run()
        calm.check_done()
        there, here = calm.found(), shop.found()
        assert (here.outputs, here.tables, here.dead) == (there.outputs, there.tables, there.dead)
    finally:
        calm.close()


def kill_at(shop: Shop, name: str, count: int) -> None:
    """Have a worker die at a point; it has new input to go through."""
    before = sum(shop.kills.values())
    shop.append(CHUNK)
    shop.run(f"{name}:{count}", slow_s=SLOW_S)
    if sum(shop.kills.values()) == before:  # it did not pass that often: the first pass comes for certain
        shop.append(CHUNK)
        shop.run(f"{name}:1", slow_s=SLOW_S)
    assert sum(shop.kills.values()) == before + 1, name
    shop.check_cut()


def kill_when(shop: Shop, chance: random.Random) -> None:
    """Kill a worker at a random time after it has begun to join."""
    shop.append(2 * CHUNK)
    worker = shop.start(slow_s=SLOW_S)
    worker.wait_passed("session.before_join")
    time.sleep(chance.uniform(0, 0.6))
    worker.process.kill()
    code = worker.wait()
    assert code in (0, -signal.SIGKILL), worker.errors()
    shop.kills["random"] += code != 0
    shop.check_cut()


def finish(shop: Shop, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop.append(CHUNK)
    shop.run()
    shop.check_done()
    archived = shop.check_archive()
    check_against_an_uninterrupted_run(shop, folder)
    tell(
        capsys,
        f"{sum(shop.kills.values())} kills of workers over {len(shop.given)} orders, {archived} records archived: "
        f"{by_phase(shop.kills) | {'random': shop.kills['random']}}; each point: {dict(shop.kills)}",
    )


def test_a_run_passes_every_point_that_is_listed_and_no_other(shop: Shop) -> None:
    """The counting pass: a new point in the code must be listed here, and so is killed at."""
    shop.forks = False
    shop.append(2 * CHUNK)
    worker = shop.run(slow_s=SLOW_S)
    assert set(worker.passed()) == set(POINTS)
    shop.check_done()
    shop.check_cut()


@pytest.mark.parametrize("seed", [1, 2])
def test_workers_killed_at_each_point_and_at_random_leave_one_cut(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    chance = random.Random(seed)
    shop.append(CHUNK)
    for name in POINTS[seed - 1 :: 2]:
        kill_at(shop, name, chance.choice([1, 2]))
    for _ in range(3):
        kill_when(shop, chance)
    finish(shop, tmp_path / "calm", capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_each_phase_five_times_or_more(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(3)
    shop.append(CHUNK)
    plan = [(name, count) for name in POINTS for count in (1, 2, 3, 4, chance.randrange(1, 9))]
    chance.shuffle(plan)
    for name, count in plan:
        kill_at(shop, name, count)
    for _ in range(40):
        kill_when(shop, chance)
    finish(shop, tmp_path / "calm", capsys)
    assert min(shop.kills[name] for name in POINTS) >= 5
    assert sum(shop.kills.values()) >= 100


def kill_in_recovery(shop: Shop, name: str, chance: random.Random) -> None:
    """Die between log and store, then again while the store catches up."""
    kill_at(shop, chance.choice(PHASES["between log and store"]), chance.choice([1, 2]))
    shop.run(f"{name}:{chance.choice([1, 2]) if name.startswith('recovery.') else 1}")
    shop.run(f"{chance.choice(PHASES['recovery'])}:1")
    shop.check_cut()


def test_workers_killed_again_while_they_recover_lose_nothing(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(4)
    for name in PHASES["recovery"]:
        kill_in_recovery(shop, name, chance)
    finish(shop, tmp_path / "calm", capsys)
    assert sum(shop.kills[name] for name in PHASES["recovery"]) == 2 * len(PHASES["recovery"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_double_kills(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(5)
    for at in range(17):
        kill_in_recovery(shop, PHASES["recovery"][at % 4], chance)
    finish(shop, tmp_path / "calm", capsys)
    assert sum(shop.kills.values()) >= 50


@pytest.mark.parametrize("name", REBALANCE)
def test_a_worker_killed_while_it_gives_tasks_up_leaves_them_to_the_other(
    shop: Shop, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    shop.append(8 * CHUNK)
    first = shop.start(f"{name}:1", slow_s=0.05)
    first.wait_passed("epoch.committed")
    second = shop.start()
    assert first.wait() == -signal.SIGKILL, (first.passed(), first.errors(), second.errors())
    assert first.passed()[name] == 1
    assert second.wait() == 0, second.errors()
    shop.check_cut()
    shop.check_done()


def several(shop: Shop, count: int, kills: int, chance: random.Random) -> None:
    """Run several workers at once; one is killed now and then, the others go on, another takes its place."""

    def deed() -> str:
        return f"{chance.choice((*POINTS[1:], *REBALANCE))}:{chance.randrange(1, 6)}"

    shop.append(4 * CHUNK)
    workers = [shop.start(deed(), slow_s=SLOW_S) for _ in range(count)]
    end_s = time.monotonic() + 30 + 10 * kills
    while sum(shop.kills.values()) < kills:
        assert time.monotonic() < end_s, [worker.errors()[-1500:] for worker in workers]
        wait_until(lambda: any(w.process.poll() is not None for w in workers), "an end", timeout_s=60)
        for at, worker in enumerate(workers):
            code = worker.process.poll()
            if code is None:
                continue
            assert code in (0, -signal.SIGKILL), worker.errors()[-4000:]
            if code:
                shop.kills[worker.last()] += 1
            shop.append(CHUNK)
            workers[at] = shop.start(deed(), slow_s=SLOW_S)
    for worker in workers:
        ended_before = worker.process.poll() is not None
        worker.process.kill()
        if worker.wait() == -signal.SIGKILL:
            shop.kills[worker.last() if ended_before else "random"] += 1
    shop.check_cut()


@pytest.mark.parametrize("count", [2, 3])
def test_of_several_workers_some_are_killed_and_the_others_go_on(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    several(shop, count, 4, random.Random(count))
    finish(shop, tmp_path / "calm", capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [2, 3])
def test_of_several_workers_many_are_killed(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    several(shop, count, 40, random.Random(10 + count))
    finish(shop, tmp_path / "calm", capsys)


def test_the_oracle_sees_a_record_that_is_lost_doubled_or_out_of_order() -> None:
    """Verify the verifier: any change of the input's order or content changes what is expected."""
    given = oracle.make_input(0, 60, lambda key: key[-1] % 2, {}, bytes_each=1)
    right = oracle.expect(given)
    lane = [g for g in given if g.lane == 0 and b"{" in g.value[:1]]
    lost = [g for g in given if g is not lane[3]]
    doubled = [*given, oracle.Given(0, lane[3].offset, lane[3].key, lane[3].value)]
    same_key = [g for g in lane if g.key == lane[0].key]
    a, b = same_key[0], same_key[1]
    swapped = [g for g in given if g not in (a, b)]
    swapped += [
        oracle.Given(0, b.offset, a.key, a.value),
        oracle.Given(0, a.offset, b.key, b.value),
    ]
    for wrong in (lost, doubled, swapped):
        assert oracle.expect(wrong).outputs != right.outputs
        assert oracle.expect(wrong).tables != right.tables
