"""Records that break one agent of several, and records that an agent holds back while its worker is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.log import open_log
from tests.equivalence.failing_app import MENDED, app, holding
from tests.equivalence.place import ROOT, Place
from tests.equivalence.world import World

ORDERS = 10_000
APP = "tests.equivalence.failing_app:app"
HOLDING = "tests.equivalence.failing_app:holding"


def order(number: int) -> dict[str, Any]:
    return {"number": number, "user": f"u{number * 7 % 13}", "team": f"t{number * 5 % 6}"}


def write_envelopes(path: Path, envelopes: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(e) + "\n" for e in envelopes), encoding="utf-8")
    return path


def expected_counts(billed: set[int]) -> dict[str, dict[str, int]]:
    rows: dict[str, dict[str, int]] = {}
    for number in range(ORDERS):
        row = rows.setdefault(order(number)["user"], {"billed": 0, "sum": 0, "watched": 0})
        row["watched"] += 1
        if number in billed:
            row["billed"] += 1
            row["sum"] += number
    return rows


def expected_teams(ranked: set[int]) -> dict[str, dict[str, int]]:
    rows: dict[str, dict[str, int]] = {}
    for number in sorted(ranked):
        row = rows.setdefault(order(number)["team"], {"n": 0, "sum": 0})
        row["n"] += 1
        row["sum"] += number
    return rows


def world_of(place: Place, app: hw.App) -> World:
    """Return a place as this process sees it: a command for each look would take a minute."""
    return World(lambda: app, place.folder, place.log_url)


def found_rows(world: World, table: str, generation: str = "live") -> dict[str, Any]:
    lines = [json.loads(line) for line in world.dump(table, generation)]
    return {line["key"]: line["value"] for line in lines}


def sent(world: World, topic: str, generation: str) -> Counter[int]:
    """Return how often each order's number stands in a topic."""
    outputs = world.outputs(topic, generation).values()
    return Counter(json.loads(o.value or b"")["number"] for part in outputs for o in part)


@pytest.mark.timeout(240)
def test_failing_records_leave_no_trace_but_a_dead_letter_and_are_put_through_after_the_fix(
    tmp_path: Path,
) -> None:
    """Holds promise 5: nothing is skipped in silence, and a failing agent takes nothing from the others."""
    show(Place(tmp_path / "place", APP), tmp_path)


def show(place: Place, tmp_path: Path, *, partitions: int = 2, processes: int = 1) -> None:
    """Show it in a place, whatever its log is."""
    place.folder.mkdir()
    everything = set(range(ORDERS))
    unbilled = {n for n in everything if n % 1000 == 999}
    unranked = {n for n in everything if n % 1000 == 499}
    envelopes = [
        {"key": order(n)["user"], "value": order(n), "timestamp": 1_000_000 + n, "headers": {"n": str(n)}}
        for n in range(ORDERS)
    ]
    place.send("orders", write_envelopes(tmp_path / "orders.jsonl", envelopes), partitions)
    place.work(processes)

    world = world_of(place, app)

    def check(billed: set[int], ranked: set[int], generation: str = "live") -> None:
        assert found_rows(world, "counts", generation) == expected_counts(billed)
        assert found_rows(world, "teams", generation) == expected_teams(ranked)
        for topic, numbers in (("receipts", billed), ("audits", billed), ("ranks", ranked)):
            assert sent(world, topic, generation) == Counter(dict.fromkeys(numbers, 1)), topic

    check(everything - unbilled, everything - unranked)
    letters = [json.loads(line) for line in place.run("dead", "show", "--json").splitlines()]
    assert sorted((letter["dead"]["agent"], letter["headers"]["n"]) for letter in letters) == sorted(
        [*(("bill", str(n)) for n in unbilled), *(("rank", str(n)) for n in unranked)]
    )
    for letter in letters:
        number = int(letter["headers"]["n"])
        # A group_by gave the record another key; it says so, and where the record itself is.
        key = order(number)["user" if letter["dead"]["agent"] == "bill" else "team"]
        assert (letter["key"], letter["value"], letter["timestamp"]) == (
            key,
            order(number),
            1_000_000 + number,
        )
        assert (letter["topic"], letter["dead"]["attempts"]) == ("orders", 2)

    mended = place.with_app(APP, **{MENDED: "1"})
    assert json.loads(mended.run("dead", "redrive", "--json"))["redriven"] == len(letters)
    mended.work()
    check(everything, everything)
    assert len(place.run("dead", "show", "--json").splitlines()) == len(letters)

    # In another generation nothing was missing: what was sent again for the live one is not for it.
    place.archive()
    place.trim("orders")
    mended.replay("mended", "--from", "earliest")
    check(everything, everything, "mended")


@pytest.mark.timeout(120)
def test_what_take_holds_back_is_neither_lost_nor_doubled_by_a_kill(tmp_path: Path) -> None:
    """Positions are kept per agent: one holds 500 of its 1,000 records while the other goes on, and both are killed."""
    place = Place(tmp_path / "place", HOLDING)
    place.folder.mkdir()

    def send(start: int, end: int) -> None:
        envelopes = [{"key": f"k{n % 10}", "value": n, "timestamp": n} for n in range(start, end)]
        place.send("numbers", write_envelopes(tmp_path / f"{start}.jsonl", envelopes), 1)

    send(0, 1_500)
    worker = subprocess.Popen(
        [
            sys.executable, "-m", "headwater", "-A", HOLDING, "--log", f"file://{place.folder}/log",
            "--archive", f"file://{place.folder}/archive", "--state", f"{place.folder}/state", "worker",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "framework"), str(ROOT)])},
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        # What the epochs say: the one is at the end, the other holds what is not in its first list.
        log = open_log(f"file://{place.folder}/log")
        deadline_s = time.monotonic() + 60
        while (at := positions(log)) != {"hold": 1_000, "go_on": 1_500}:
            assert time.monotonic() < deadline_s, f"after 60 s the agents are at {at}"
            time.sleep(0.05)  # another process moves them: there is nothing to wait for here
        log.close()
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    send(1_500, 2_400)
    place.work()
    values = [json.loads(line)["value"] for line in place.run("read", "lists", "--json").splitlines()]
    assert values == [list(range(1_000)), list(range(1_000, 2_000))]
    assert found_rows(world_of(place, holding), "passed") == {
        f"k{k}": sum(range(k, 2_400, 10)) for k in range(10)
    }


def positions(log: Any) -> dict[str, int]:
    """Return how far the last epoch says that each agent is."""
    if log.topic("holding.live.epochs") is None:
        return {}
    batch = log.read("holding.live.epochs", 0, 0)
    states = [
        json.loads(value)
        for key, value in zip(batch.keys, batch.values, strict=True)
        if key == b"0" and value is not None
    ]
    if not states:
        return {}
    return {a: p["numbers/0"] for a, p in states[-1]["positions"].items() if a in ("hold", "go_on")}
