"""Groups on real brokers: shares, cooperative hand-over, fencing, positions, and what a killed worker's name settles."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from headwater.core.batch import Append, TopicPartition
from headwater.core.errors import (
    FencedError,
    GenerationError,
    LogInterruptedError,
    LogUnavailableError,
    PartitionCountError,
)
from headwater.log.interface import Assignment, Membership, Transaction
from headwater.log.kafka import KafkaLog

pytestmark = pytest.mark.broker

Open = Callable[[], KafkaLog]


@pytest.fixture
def name() -> str:
    return f"g{secrets.token_hex(4)}"


@pytest.fixture
def another(broker: str) -> Iterator[Open]:
    opened: list[KafkaLog] = []

    def open_it(**settings: str) -> KafkaLog:
        opened.append(KafkaLog(f"kafka://{broker}", settings))
        return opened[-1]

    yield open_it
    for log in opened:
        log.close()


@pytest.fixture
def log(another: Open, name: str) -> KafkaLog:
    log = another()
    log.create_topic(name, 4)
    return log


def record(topic: str, value: bytes = b"v") -> list[Append]:
    return [Append(topic, 0, [5], [None], [value])]


def settle(members: list[Membership], count: int, within_s: float = 20) -> list[frozenset[int]]:
    """Beat as workers do until all tasks are owned, evenly."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        owned = []
        for member in members:
            beat = member.heartbeat()
            member.release(beat.revoking)
            owned.append(beat.owned - beat.revoking)
        sizes = [len(own) for own in owned]
        if sum(sizes) == count and max(sizes) - min(sizes) <= 1:
            return owned
        time.sleep(0.05)
    raise AssertionError(f"not settled: {owned}")


def values(log: KafkaLog, topic: str, partition: int = 0) -> list[bytes | None]:
    found: list[bytes | None] = []
    position = 0
    end = log.end_offset(topic, partition, uncommitted=True)
    while position < end:
        batch = log.read(topic, partition, position, end=end)
        found += batch.values
        position = batch.next
    return found


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_members_share_tasks_and_hand_over_only_what_was_released(
    another: Callable[..., KafkaLog], log: KafkaLog, name: str, protocol: str
) -> None:
    """I4, by both of Kafka's group protocols (KIP-848 is `consumer`)."""
    settings = {"group.protocol": protocol}
    first = another(**settings).join(name, 8, lease_s=6)
    assert settle([first], 8) == [frozenset(range(8))]
    second_log = another(**settings)
    second = second_log.join(name, 8, lease_s=6)
    end_s = time.monotonic() + 20
    while not first.heartbeat().revoking and time.monotonic() < end_s:
        time.sleep(0.05)
    beat = first.heartbeat()
    assert beat.revoking
    assert beat.owned == frozenset(range(8)), "what is asked for is still owned until it is released"
    time.sleep(0.5)
    assert not second.heartbeat().owned
    moving = sorted(beat.revoking)
    # The open epoch of a task that is to be given up may still be committed.
    log.commit(Transaction(record(name, b"last"), {TopicPartition(name, 1): 5}, first, moving))
    shares = settle([first, second], 8)
    assert shares[0].isdisjoint(shares[1])
    with pytest.raises(FencedError, match="doesn't own"):
        log.commit(Transaction(record(name, b"late"), {TopicPartition(name, 1): 6}, first, moving))
    second_log.commit(
        Transaction(record(name, b"new"), {TopicPartition(name, 1): 6}, second, sorted(shares[1]))
    )
    assert values(log, name) == [b"last", b"new"]
    assert log.positions(name) == {TopicPartition(name, 1): 6}
    places = [TopicPartition(name, partition) for partition in range(4)]
    assert log.positions(name, places) == {TopicPartition(name, 1): 6}
    assert log.members(name) == 2
    second.leave()
    second.leave()
    assert settle([first], 8) == [frozenset(range(8))]
    with pytest.raises(FencedError):
        second.heartbeat()
    with pytest.raises(GenerationError, match="members"):
        log.forget_group(name)
    first.leave()
    log.forget_group(name)
    assert log.positions(name) == {}
    assert log.members("nobody") == 0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_static_member_that_comes_back_has_its_tasks_and_others_keep_theirs(
    another: Callable[..., KafkaLog], log: KafkaLog, name: str, protocol: str
) -> None:
    """I4: no task moves while it is away for less than its session; the processes of one machine are told apart."""
    settings = {"group.protocol": protocol, "group.instance.id": "machine"}
    first_log, second_log = another(**settings), another(**settings)
    first = first_log.join(name, 8, lease_s=6, process=0)
    second = second_log.join(name, 8, lease_s=6, process=1)
    before = settle([first, second], 8)
    first.leave()
    back = another(**settings).join(name, 8, lease_s=6, process=0)
    end_s = time.monotonic() + 20
    while back.heartbeat().owned != before[0] and time.monotonic() < end_s:
        assert second.heartbeat() == Assignment(before[1], frozenset(), second.heartbeat().generation, 1)
        time.sleep(0.05)
    assert back.heartbeat().owned == before[0]
    beat = second.heartbeat()
    assert (beat.owned, beat.revoking) == (before[1], frozenset())
    log.commit(Transaction(record(name), {TopicPartition(name, 0): 1}, second, sorted(before[1])))
    # Who has no number comes once and is no static member, whatever the settings say.
    passing = another(**settings).join(name, 8, lease_s=6)
    passing.leave()


def test_of_two_static_members_of_one_name_the_later_stays_and_the_other_is_told(
    another: Callable[..., KafkaLog], name: str
) -> None:
    """Were it fenced as others are, both would join again for ever."""
    first_log, second_log = (another(**{"group.instance.id": "machine"}) for _ in range(2))
    first_log.create_topic(name, 4)
    first = first_log.join(name, 4, lease_s=6, process=0)
    settle([first], 4)
    second = second_log.join(name, 4, lease_s=6, process=0)
    settle([second], 4)

    def beat() -> None:
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s:
            first.heartbeat()
            time.sleep(0.05)

    with pytest.raises(
        LogUnavailableError, match=r"same static member.*group\.instance\.id of its own"
    ) as raised:
        beat()
    assert not isinstance(raised.value, LogInterruptedError), "it would be tried again"
    assert second.heartbeat().owned == frozenset(range(4))


def test_by_the_consumer_protocol_a_static_name_in_use_is_waited_for(
    another: Callable[..., KafkaLog], name: str
) -> None:
    """It may be that of a worker that was killed a moment ago."""
    settings = {"group.protocol": "consumer", "group.instance.id": "machine"}
    first = another(**settings).join(name, 4, lease_s=6, process=0)
    settle([first], 4)
    second_log = another(**settings)
    second = second_log.join(name, 4, lease_s=6, process=0)
    with pytest.raises(LogInterruptedError, match="still has a static member of this name"):
        settle([second], 4)
    second.leave()
    assert first.heartbeat().owned == frozenset(range(4))
    first.leave()
    settle([second_log.join(name, 4, lease_s=6, process=0)], 4)


def test_another_number_of_tasks_is_refused(log: KafkaLog, name: str) -> None:
    log.join(name, 4).leave()
    with pytest.raises(PartitionCountError):
        log.join(name, 2)


def test_a_commit_goes_through_while_the_group_rebalances_around_it(
    another: Open, log: KafkaLog, name: str
) -> None:
    """Cooperative: who keeps its tasks commits on, under whatever number the group has by then."""
    first = log.join(name, 4, lease_s=6)
    settle([first], 4)
    stop = threading.Event()
    joined: list[Exception] = []

    def come_and_go() -> None:
        other = another()
        while not stop.is_set():
            member = other.join(f"{name}", 4, lease_s=6)
            time.sleep(0.3)
            member.leave()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        done = 0
        end_s = time.monotonic() + 12
        while time.monotonic() < end_s:
            beat = first.heartbeat()
            keep = sorted(beat.owned - beat.revoking)
            if keep:
                log.commit(
                    Transaction(record(name, b"%d" % done), {TopicPartition(name, 0): done}, first, keep[:1])
                )
                done += 1
            first.release(beat.revoking)
    finally:
        stop.set()
        thread.join()
    assert not joined
    assert done > 20
    assert values(log, name) == [b"%d" % n for n in range(done)]


ZOMBIE = """
import os, signal, sys, time
from headwater.core.batch import Append, TopicPartition
from headwater.core.errors import HeadwaterError
from headwater.log.interface import Transaction
from headwater.log.kafka import KafkaLog
log = KafkaLog(sys.argv[1]); name = sys.argv[2]
member = log.join(name, 4, lease_s=2, name="zombie")
while len(member.heartbeat().owned) < 4: time.sleep(0.05)
def commit(value):
    log.commit(Transaction([Append(name, 0, [5], [None], [value])], {TopicPartition(name, 0): 1}, member, range(4)))
commit(b"first")
print("ready", flush=True)
if sys.argv[3] == "outside":
    signal.raise_signal(signal.SIGSTOP)
try:
    commit(b"zombie")
    print("committed", flush=True)
except HeadwaterError as error:
    print(type(error).__name__, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("where", ["outside", "log.in_transaction:2", "log.before_commit:2"])
def test_a_stopped_member_that_wakes_up_is_fenced(
    another: Open, log: KafkaLog, name: str, broker: str, where: str
) -> None:
    """I4, F10: stopped past its session, before or within its transaction; nothing of it is ever seen."""
    environment = dict(os.environ, HEADWATER_CRASH="" if where == "outside" else f"{where}=stop")
    process = subprocess.Popen(
        [sys.executable, "-c", ZOMBIE, f"kafka://{broker}", name, where],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        member = log.join(name, 4, lease_s=6)
        assert settle([member], 4, within_s=30) == [frozenset(range(4))]
        # Waits for the zombie's transaction to time out, where it holds one open.
        assert log.positions(name, [TopicPartition(name, n) for n in range(2)]) == {
            TopicPartition(name, 0): 1
        }
        assert log.positions(name) == {TopicPartition(name, 0): 1}
        log.commit(Transaction(record(name, b"second"), {TopicPartition(name, 0): 2}, member, range(4)))
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() in ("FencedError\n", "LogInterruptedError\n")
        process.wait(30)
    assert values(log, name) == [b"first", b"second"]
    assert log.positions(name) == {TopicPartition(name, 0): 2}


KILLED = """
import os, sys
from confluent_kafka import Producer
name = sys.argv[2]
producer = Producer({"bootstrap.servers": sys.argv[1], "transactional.id": name + ".slot", "transaction.timeout.ms": 30000})
producer.init_transactions(30)
producer.begin_transaction()
producer.produce(name, b"lost", partition=0)
producer.flush(30)
os._exit(0)
"""


def test_what_a_killed_worker_left_open_is_settled_by_the_next_of_its_name(
    log: KafkaLog, name: str, broker: str
) -> None:
    """I26: readers don't wait for the transaction's 30 s."""
    subprocess.run([sys.executable, "-c", KILLED, broker, name], check=True, timeout=60)
    assert log.end_offset(name, 0, uncommitted=True) == 1
    assert log.end_offset(name, 0) == 0
    began_s = time.monotonic()
    log.join(name, 1, lease_s=30, name="slot")
    while log.end_offset(name, 0) < log.end_offset(name, 0, uncommitted=True):
        assert time.monotonic() - began_s < 15, "the open transaction was not settled"
        time.sleep(0.05)
    assert log.positions(name) == {}
    assert values(log, name) == []
