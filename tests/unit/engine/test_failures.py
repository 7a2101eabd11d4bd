"""Records that can't be processed: tried again, then a dead letter in the commit that goes past them; or the worker stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.core.errors import RecordFailedError
from headwater.engine.run import RunOptions, run_worker
from tests.unit.engine.runs import Place, killed_at


def _failing(app: hw.App, how: str, **agent_options: Any) -> None:
    """Declare an agent that writes, sends and yields for each order, and fails on order 2 in a given way."""
    orders = app.topic("orders", key_type=int, value_type=int)
    out = app.topic("out")
    tries = app.Table("tries", default=int)

    @app.agent(orders, sink=[app.topic("yielded")], **agent_options)
    async def biller(stream: hw.Stream) -> AsyncIterator[Any]:
        async for number in stream:
            tries["all"] += 1
            await out.send(value=number)
            yield number
            if number == 2:
                if how == "raise":
                    raise ValueError("two")
                if how == "hang":
                    await asyncio.Event().wait()
                if how == "send":
                    await out.send(value="x" * 1_000)
                if how == "send_soon":
                    out.send_soon(value="x" * 1_000)
                if how == "yield":
                    yield "x" * 1_000
                if how == "cancel":
                    raise asyncio.CancelledError


_ERRORS = {
    "raise": ("ValueError", "two", 3),
    "hang": ("TimeoutError", "longer than 0.05 s", 3),
    "send": ("ValueRefusedError", "message_bytes_max=500", 3),
    "send_soon": ("ValueRefusedError", "message_bytes_max=500", 3),
    "yield": ("ValueRefusedError", "message_bytes_max=500", 3),
    "cancel": ("CancelledError", "cancelled", 3),
}


@pytest.mark.parametrize("how", list(_ERRORS))
def test_a_failing_record_is_a_dead_letter_and_nothing_of_it_is_left(tmp_path: Path, how: str) -> None:
    """I20: attempts and error are said; its table writes, sends and yields are rolled back; its neighbours' stand."""
    place = Place(tmp_path)
    place.append("orders", range(5), keys=[str(at).encode() for at in range(5)])
    place.run(lambda app: _failing(app, how), timeout_s=0.05, message_bytes_max=500)

    error, message, attempts = _ERRORS[how]
    [(key, value, info)] = place.dead()
    assert (key, value) == (b"2", b"2")
    assert message in info.pop("message")
    assert info == {
        "topic": "orders", "partition": 0, "offset": 2, "agent": "biller", "error": error, "attempts": attempts,
    }  # fmt: skip
    assert place.values("out") == place.values("yielded") == [0, 1, 3, 4]
    assert place.table("tries") == {b"all": 4}
    # One epoch: the letter and the position that goes past its record were one transaction.
    assert [state.positions["biller"] for state in place.commits()] == [{"orders/0": 5}]


@pytest.mark.parametrize("how", [*_ERRORS, "value", "key"])
def test_without_dead_letters_the_worker_stops_and_names_the_record(tmp_path: Path, how: str) -> None:
    """I20: nothing of the record's epoch is visible, and after the agent is mended the record is there."""
    place = Place(tmp_path)
    keys: list[bytes | None] = [str(at).encode() for at in range(5)]
    values: list[Any] = list(range(5))
    if how == "key":
        keys[2] = b"two"
    if how == "value":
        values[2] = b"{"
    place.append("orders", values, keys=keys)
    app = place.app(
        lambda app: _failing(app, how), timeout_s=0.05, message_bytes_max=500, retries=1, dead_letters=False
    )
    with pytest.raises(RecordFailedError, match="orders/0@2") as stopped:
        run_worker(app, "app", RunOptions(until_idle=True), settings=place.settings)
    assert "dead letters are off" in str(stopped.value)
    assert place.states() == {}
    for topic in ("out", "yielded", "app.live.dead", "app.live.changelog.tries"):
        assert place.log.topic(topic) is None or len(place.batch(topic)) == 0
    if how in _ERRORS:
        place.run(lambda app: _failing(app, "mended"), dead_letters=False)
        assert place.values("out") == place.values("yielded") == list(range(5))


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        (b"1", b"{", "ValueRefusedError"),
        (b"one", b"1", "KeyRefusedError"),
        (b"1", b'"1"', "ValueRefusedError"),
    ],
)
def test_what_cannot_be_decoded_is_a_dead_letter_once_for_all_agents(
    tmp_path: Path, key: bytes, value: bytes, error: str
) -> None:
    """I20: two agents read the topic; the record is no agent's and in dead letters once, byte for byte."""
    place = Place(tmp_path)
    place.append("orders", [b"0", value, b"2"], keys=[b"0", key, b"2"])
    got: dict[str, list[int]] = {"one": [], "two": []}

    def declare(app: hw.App) -> None:
        orders = app.topic("orders", key_type=int, value_type=int)

        @app.agent(orders)
        async def one(stream: hw.Stream) -> None:
            async for number in stream:
                got["one"].append(number)

        @app.agent(orders)
        async def two(stream: hw.Stream) -> None:
            async for number in stream:
                got["two"].append(number)

    place.run(declare)
    assert got == {"one": [0, 2], "two": [0, 2]}
    [(dead_key, dead_value, info)] = place.dead()
    assert (dead_key, dead_value) == (key, value)
    assert (info["agent"], info["offset"], info["error"], info["attempts"]) == ("decode", 1, error, 1)


def test_one_agents_failure_is_not_the_others(tmp_path: Path) -> None:
    """Must show 4: one agent fails on every tenth record after a write and a send; the other sees all."""
    place = Place(tmp_path)
    place.append("orders", range(100))
    seen: list[int] = []

    def declare(app: hw.App) -> None:
        orders = app.topic("orders", value_type=int)
        out = app.topic("out")
        written = app.Table("written", local=True)

        @app.agent(orders)
        async def failing(stream: hw.Stream) -> None:
            async for number in stream:
                written[str(number)] = number
                await out.send(value=number)
                if number % 10 == 3:
                    raise ValueError(f"no {number}")

        @app.agent(orders)
        async def whole(stream: hw.Stream) -> None:
            async for number in stream:
                seen.append(number)

    place.run(declare)
    bad = list(range(3, 100, 10))
    assert [json.loads(value or b"") for _, value, _ in place.dead()] == bad
    assert place.values("out") == [n for n in range(100) if n not in bad]
    assert place.table("written") == {str(n).encode(): n for n in range(100) if n not in bad}
    assert seen == list(range(100))


@pytest.mark.parametrize("split", [True, False])
def test_a_list_that_fails_goes_to_dead_letters_whole_or_is_split(tmp_path: Path, split: bool) -> None:
    """A failing `take` list is redone record by record with split=True, else each of its records is a dead letter."""
    place = Place(tmp_path)
    place.append("orders", range(9))
    lists: list[list[int]] = []

    def declare(app: hw.App) -> None:
        out = app.topic("out")

        @app.agent(app.topic("orders", value_type=int), split=split, retries=1)
        async def taker(stream: hw.Stream) -> None:
            async for numbers in stream.take(3):
                lists.append(numbers)
                for number in numbers:
                    await out.send(value=number)
                if 4 in numbers:
                    raise ValueError("four")

    place.run(declare)
    dead = [json.loads(value or b"") for _, value, _ in place.dead()]
    if split:
        assert lists == [[0, 1, 2], [3, 4, 5], [3, 4, 5], [3], [4], [4], [5], [6, 7, 8]]
        assert dead == [4]
        assert place.values("out") == [0, 1, 2, 3, 5, 6, 7, 8]
    else:
        assert lists == [[0, 1, 2], [3, 4, 5], [3, 4, 5], [6, 7, 8]]
        assert dead == [3, 4, 5]
        assert place.values("out") == [0, 1, 2, 6, 7, 8]


def test_an_agent_that_returns_has_finished_its_record_and_goes_on_with_the_next(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.append("orders", range(4))
    got: list[int] = []

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def once(stream: hw.Stream) -> None:
            async for number in stream:
                got.append(number)
                return

    place.run(declare)
    assert got == [0, 1, 2, 3]
    assert place.states()[0].positions["once"] == {"orders/0": 4}


@pytest.mark.parametrize("how", ["raises", "returns"])
def test_an_agent_that_never_takes_a_record_stops_the_worker(tmp_path: Path, how: str) -> None:
    """It would spin for ever, and no record is to blame: nothing goes to dead letters."""
    place = Place(tmp_path)
    place.append("orders", range(4))

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def never(stream: hw.Stream) -> None:
            if how == "raises":
                raise OSError("no such service")

    with pytest.raises(hw.HeadwaterError, match="never" if how == "raises" else "without taking a record"):
        place.run(declare)
    assert place.states() == {}
    assert place.log.topic("app.live.dead") is None or len(place.batch("app.live.dead")) == 0


def test_time_and_chance_are_the_same_in_retries_and_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I11: stream.now() is event time, stream.random hangs on agent and record alone."""
    place = Place(tmp_path)
    place.append("orders", range(6), times=[5_000, 3_000, 7_000, 7_000, 1_000, 9_000])
    drawn: list[tuple[int, int, float]] = []

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def draw(stream: hw.Stream) -> None:
            async for number in stream:
                first = stream.random.random()
                drawn.append((number, stream.now(), first + stream.random.random()))
                if number == 3:
                    raise ValueError("three")

    with killed_at(monkeypatch, "epoch.before_log"):
        place.run(declare)
    place.run(declare)
    assert len(drawn) == 2 * (6 + 2)
    assert len(set(drawn)) == 6
    assert [now for _, now, _ in sorted(set(drawn))] == [5_000, 5_000, 7_000, 7_000, 7_000, 9_000]
    assert len({chance for _, _, chance in drawn}) == 6


def test_concurrency_is_refused_with_what_to_do_instead() -> None:
    app = hw.App("app")
    with pytest.raises(hw.MisuseError, match="concurrency") as refused:

        @app.agent(app.topic("orders"), concurrency=2)
        async def two(stream: hw.Stream) -> None:
            async for _ in stream:
                pass

    assert "partitions" in str(refused.value)
    assert "--processes" in str(refused.value)


def test_a_failure_in_lock_step_leaves_the_other_agents_part_of_the_record(tmp_path: Path) -> None:
    """Agents that share a table finish each record one after the other; one's failure rolls back its own writes only."""
    place = Place(tmp_path)
    place.append("orders", range(4), keys=b"k")
    steps: list[tuple[str, int]] = []

    def declare(app: hw.App) -> None:
        orders = app.topic("orders", value_type=int)
        total = app.Table("total", default=int)

        @app.agent(orders)
        async def first(stream: hw.Stream) -> None:
            async for _ in stream:
                steps.append(("first", total["k"]))
                total["k"] += 1

        @app.agent(orders)
        async def second(stream: hw.Stream) -> None:
            async for number in stream:
                steps.append(("second", total["k"]))
                total["k"] += 100
                if number == 2:
                    raise ValueError("two")

    place.run(declare, retries=0)
    assert steps == [
        ("first", 0), ("second", 1), ("first", 101), ("second", 102), ("first", 202), ("second", 203), ("first", 203),
        ("second", 204),
    ]  # fmt: skip
    assert place.table("total") == {b"k": 304}
    assert [info["agent"] for _, _, info in place.dead()] == ["second"]
