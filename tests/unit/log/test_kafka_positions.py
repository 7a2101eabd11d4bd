"""Positions that a broker holds for unstable for ever: left out once no transaction can be open any more.

A broker of 4.3.1 that was killed does this (docs/operate.md, "A transaction that nobody ends"), which takes it a while: what it
answers is played here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from headwater.core.batch import TopicPartition
from headwater.core.clock import ManualClock
from headwater.core.errors import LogInterruptedError, LogUnavailableError
from headwater.log.kafka import groups
from headwater.log.kafka.groups import NOBODYS, group_positions, named_positions


class Admin:
    """Answers as a broker whose partition 1 stays unstable until `settles_s`; each answer takes a second."""

    def __init__(self, clock: ManualClock, settles_s: float, *, how: str = "partition") -> None:
        self.clock, self.settles_s, self.how = clock, settles_s, how
        self.asked: list[tuple[float, bool]] = []

    def list_consumer_group_offsets(
        self, requests: list[ConsumerGroupTopicPartitions], *, require_stable: bool, request_timeout: float
    ) -> dict[str, Future[Any]]:
        del request_timeout
        self.clock.advance(1)
        now_s = self.clock.monotonic_s()
        self.asked.append((now_s, require_stable))
        future: Future[Any] = Future()
        is_unstable = require_stable and now_s < self.settles_s
        if is_unstable and self.how == "timeout" and len(self.asked) % 2 == 0:
            future.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
            return {requests[0].group_id: future}
        if is_unstable and self.how == "call":
            future.set_exception(KafkaException(KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT)))
            return {requests[0].group_id: future}
        places = [KafkaPartition("t", partition, 7 + partition) for partition in range(2)]
        if is_unstable:
            places[1] = _Unstable("t", 1)
        future.set_result(ConsumerGroupTopicPartitions(requests[0].group_id, None))
        future.result().topic_partitions = places
        return {requests[0].group_id: future}


class _Unstable:
    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition, self.offset = topic, partition, -1001
        self.error = KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    made = ManualClock()
    monkeypatch.setattr(groups, "SYSTEM_CLOCK", made)
    monkeypatch.setattr(groups, "_PAUSE_S", 0.0)
    return made


WHOLE = {TopicPartition("t", 0): 7, TopicPartition("t", 1): 8}


@pytest.mark.parametrize("how", ["partition", "timeout"])
def test_what_stays_unstable_is_left_out_once_any_transaction_has_timed_out(
    clock: ManualClock, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Though every other call is not answered at all."""
    admin: Any = Admin(clock, float("inf"), how=how)
    # A command that ran in this process may have set another.
    with caplog.at_level(logging.WARNING, logger="headwater"):
        assert group_positions("kafka://x", admin, "g", transaction_s=4.0) == {TopicPartition("t", 0): 7}
    assert admin.asked[-1][0] - admin.asked[0][0] >= 2 * 4.0 + groups.BROKER_DELAY_S
    assert all(stable for _, stable in admin.asked)
    assert "t/1" in caplog.text


def test_what_settles_is_waited_for(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    admin: Any = Admin(clock, 9.0)
    with caplog.at_level(logging.WARNING, logger="headwater"):
        assert group_positions("kafka://x", admin, "g", transaction_s=4.0) == WHOLE
    assert all(stable for _, stable in admin.asked)
    assert not caplog.text


def test_a_broker_that_does_not_answer_is_no_unstable_one(clock: ManualClock) -> None:
    admin: Any = Admin(clock, float("inf"), how="timeout")
    admin.asked.append((0.0, True))
    with pytest.raises(LogInterruptedError, match="the positions of group 'g'"):
        group_positions("kafka://x", admin, "g", transaction_s=4.0)


def test_a_broker_that_names_no_partition_is_not_waited_for_for_ever(clock: ManualClock) -> None:
    admin: Any = Admin(clock, float("inf"), how="call")
    with pytest.raises(LogInterruptedError, match="the positions of group 'g'"):
        group_positions("kafka://x", admin, "g", transaction_s=4.0)
    assert clock.monotonic_s() >= 2 * 4.0 + groups.BROKER_DELAY_S


def test_what_must_be_asked_for_by_name_is_waited_for_once(clock: ManualClock) -> None:
    admin: Any = Admin(clock, float("inf"))
    asked = [TopicPartition("t", 1)]
    assert group_positions("kafka://x", admin, "g", asked, transaction_s=4.0) == {TopicPartition("t", 0): 7}
    assert [stable for _, stable in admin.asked][:2] == [False, True]
    assert clock.monotonic_s() <= 2 * 4.0 + groups.BROKER_DELAY_S + 3


class Coordinator:
    """Stands for a consumer: answers nothing until `back_s`, and not what names partition 1 until `settles_s`."""

    def __init__(self, clock: ManualClock, settles_s: float, back_s: float = 0.0) -> None:
        self.clock, self.settles_s, self.back_s = clock, settles_s, back_s
        self.error: KafkaError | None = None
        self.says = KafkaError._TIMED_OUT
        """What it is told of while nothing is answered; all but a time-out at once."""
        self.is_closed = False

    def committed(self, places: list[KafkaPartition], timeout_s: float) -> list[KafkaPartition]:
        assert not self.is_closed
        now_s = self.clock.monotonic_s()
        if self.error is not None:
            raise KafkaException(self.error)
        is_unstable = now_s < self.settles_s and 1 in [place.partition for place in places]
        if now_s < self.back_s or is_unstable:
            self.clock.advance(timeout_s if self.says == KafkaError._TIMED_OUT else 0.01)
            raise KafkaException(KafkaError(self.says))
        self.clock.advance(0.01)
        given = {0: 7, 1: 8}
        return [KafkaPartition(p.topic, p.partition, given.get(p.partition, -1001)) for p in places]

    def close(self) -> None:
        self.is_closed = True


ASKED = [TopicPartition("t", partition) for partition in range(3)]


@pytest.fixture
def ask(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Coordinator], dict[TopicPartition, int]]:
    def asked(coordinator: Coordinator) -> dict[TopicPartition, int]:
        monkeypatch.setattr(groups, "Consumer", lambda settings: coordinator)
        try:
            return named_positions("kafka://x", {}, "g", ASKED, transaction_s=4.0)
        finally:
            assert coordinator.is_closed

    return asked


def test_named_positions_are_those_that_are_there(
    clock: ManualClock, ask: Callable[[Coordinator], dict[TopicPartition, int]]
) -> None:
    assert ask(Coordinator(clock, 0.0)) == WHOLE
    assert NOBODYS not in [tp.partition for tp in ASKED]


def test_a_named_one_that_settles_is_waited_for(
    clock: ManualClock,
    ask: Callable[[Coordinator], dict[TopicPartition, int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="headwater"):
        assert ask(Coordinator(clock, 25.0)) == WHOLE
    assert not caplog.text


def test_a_named_one_that_stays_unstable_is_left_out_once_any_transaction_has_timed_out(
    clock: ManualClock,
    ask: Callable[[Coordinator], dict[TopicPartition, int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="headwater"):
        assert ask(Coordinator(clock, float("inf"))) == {TopicPartition("t", 0): 7}
    assert 2 * 4.0 + groups.BROKER_DELAY_S <= clock.monotonic_s() <= 2 * 4.0 + groups.BROKER_DELAY_S + 10
    assert "in t/1, longer" in caplog.text


@pytest.mark.parametrize(
    "says",
    [
        KafkaError._TIMED_OUT,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    ],
)
def test_a_coordinator_that_comes_back_or_moves_is_waited_for(
    clock: ManualClock, ask: Callable[[Coordinator], dict[TopicPartition, int]], says: int
) -> None:
    coordinator = Coordinator(clock, 0.0, back_s=groups.CALL_S - 3)
    coordinator.says = says
    assert ask(coordinator) == WHOLE


def test_one_that_does_not_is_no_unstable_one(
    clock: ManualClock, ask: Callable[[Coordinator], dict[TopicPartition, int]]
) -> None:
    with pytest.raises(LogInterruptedError, match="the positions of group 'g'"):
        ask(Coordinator(clock, float("inf"), back_s=float("inf")))
    assert clock.monotonic_s() <= groups.CALL_S + 3 * groups.NAMED_CALL_S


def test_a_refusal_is_told_at_once(
    clock: ManualClock, ask: Callable[[Coordinator], dict[TopicPartition, int]]
) -> None:
    coordinator = Coordinator(clock, 0.0)
    coordinator.error = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(LogUnavailableError, match="refuses the positions of group 'g'"):
        ask(coordinator)
