"""Positions that a broker holds for unstable for ever: left out once no transaction can be open any more.

A broker that was killed has been seen to do this (Kafka 4.3.1, `tests/kafka/test_chaos.py -m slow`), but not at will: what it answers
is played here.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from headwater.core.batch import TopicPartition
from headwater.core.clock import ManualClock
from headwater.core.errors import LogInterruptedError
from headwater.log.kafka import groups
from headwater.log.kafka.groups import group_positions


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
