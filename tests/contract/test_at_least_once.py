"""At least once, on every log: outputs go ahead of their epoch, and an epoch that stands says that they are there."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from headwater.core.batch import Append, TopicPartition
from headwater.core.errors import LogInterruptedError, RecordFailedError
from headwater.log import open_log
from headwater.log.interface import Log, Transaction
from tests.contract.logs import Renamed
from tests.contract.test_log_records import read_all
from tests.equivalence.echoing import echoing
from tests.equivalence.world import Given, World

LOGS = ["memory", "file", pytest.param("kafka", marks=pytest.mark.broker)]


@pytest.fixture(params=LOGS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "kafka":
        return f"kafka://{request.getfixturevalue('broker')}"
    return f"memory://{request.node.nodeid}" if request.param == "memory" else f"file://{tmp_path}/log"


@pytest.fixture
def log(url: str) -> Iterator[Log]:
    made = Renamed(open_log(url), f"{secrets.token_hex(4)}-")
    made.create_topic("t", 2)
    yield made
    made.close()


def one(partition: int, *values: bytes) -> Append:
    return Append("t", partition, [5] * len(values), [None] * len(values), list(values))


def test_what_was_sent_is_there_in_order_once_it_is_settled(log: Log) -> None:
    sent: dict[int, list[bytes]] = {0: [], 1: []}
    for round_ in range(50):
        for partition in sent:
            values = [f"{round_}.{n}".encode() for n in range(1 + round_ % 4)]
            log.send([one(partition, *values)])
            sent[partition] += values
    assert log.settle() == []
    for partition, values in sent.items():
        assert read_all(log, "t", partition) == values
    log.send([])
    assert log.settle() == []


class Stopped(Exception):
    """What is thrown in place of a kill."""


def stop(appends: Sequence[Append], positions: Mapping[TopicPartition, int], *rest: Any) -> Transaction:
    """Throw in place of the transaction that has read something."""
    if any(positions[tp] for tp in positions if tp.topic.endswith("-in")):
        raise Stopped
    return Transaction(appends, positions, *rest)


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_outputs_go_ahead_of_an_epoch_that_never_ends_only_at_least_once(
    url: str, tmp_path: Path, guarantee: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables are exact either way: they move with their epoch alone."""
    name = f"ahead{secrets.token_hex(3)}"
    world = World(lambda: echoing(name, guarantee=guarantee), tmp_path, url)
    values = [f'"v{n}"'.encode() for n in range(20)]
    world.send(f"{name}-in", 1, [Given(b"k", value, 1_000 + n) for n, value in enumerate(values)])
    with monkeypatch.context() as patch:
        # The last thing before the log's transaction, which never comes.
        patch.setattr("headwater.engine.session.Transaction", stop)
        with pytest.raises(RecordFailedError, match="Stopped"):
            world.work()
    before = [output.value for output in world.topic(f"{name}-out")[0]]
    world.work()
    after = [output.value for output in world.topic(f"{name}-out")[0]]
    if guarantee == "exactly_once":
        assert (before, after) == ([], values)
    else:
        assert (before, after) == (values, values + values)
    assert '"value":20' in world.dump("seen")[0].replace(" ", "")


@pytest.mark.broker
def test_outputs_that_a_broker_refuses_go_to_dead_letters_and_the_rest_is_there(
    broker: str, tmp_path: Path
) -> None:
    name = f"big{secrets.token_hex(3)}"
    kafka = {"max.message.bytes": "2000"}
    world = World(
        lambda: echoing(name, kafka=kafka, guarantee="at_least_once"), tmp_path, f"kafka://{broker}"
    )
    chance = random.Random(5)
    sizes = [10, 5000, 20, 30, 9000, 40]
    values = [f'"{chance.randbytes(size // 2).hex()}"'.encode() for size in sizes]
    world.send(f"{name}-in", 1, [Given(b"k", value, 1_000_000 + n) for n, value in enumerate(values)])
    world.work()
    found = [output.value for output in world.topic(f"{name}-out")[0]]
    assert sorted(set(map(bytes, filter(None, found)))) == sorted(values[at] for at in (0, 2, 3, 5))
    letters = {value for _, value, _, _ in world.dead()}
    assert letters == {values[1], values[4]}


@pytest.mark.broker
def test_what_cannot_be_delivered_is_said_when_it_is_settled(broker: str) -> None:
    log = open_log(f"kafka://{broker}", {"message.timeout.ms": "1"})
    topic = f"late{secrets.token_hex(3)}"
    log.create_topic(topic, 1)

    def send_much() -> None:
        for _ in range(50):
            log.send([Append(topic, 0, [5] * 200, [None] * 200, [b"x" * 50_000] * 200)])
            log.settle()

    with pytest.raises(LogInterruptedError, match="sending"):
        send_much()
    # It was said once; whoever sends nothing more has nothing to wait for.
    assert log.settle() == []
    log.close()
