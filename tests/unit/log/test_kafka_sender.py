"""A transactional id is asked for once all partitions have leaders: what that aborts is ended in all of them.

How long a broker that comes back leads nothing hangs on the machine: what it answers is played here.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from headwater.core.clock import ManualClock
from headwater.core.errors import LogUnavailableError
from headwater.log.kafka import sender as sender_module
from headwater.log.kafka.sender import LEADERS_S, Sender


class Played:
    """A producer of a cluster in which partition 1 has no leader until `led_s`."""

    led_s = 0.0
    answers = True
    clock: ManualClock
    asked_at_s: float | None

    def __init__(self, settings: dict[str, Any]) -> None:
        type(self).asked_at_s = None

    def list_topics(self, timeout: float) -> Any:
        assert timeout > 0
        if not self.answers:
            self.clock.advance(timeout)
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        leaders = [1, 1 if self.clock.monotonic_s() >= self.led_s else -1]
        partitions = {at: SimpleNamespace(leader=leader) for at, leader in enumerate(leaders)}
        return SimpleNamespace(topics={"orders": SimpleNamespace(partitions=partitions)})

    def init_transactions(self, timeout: float) -> None:
        type(self).asked_at_s = self.clock.monotonic_s()
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> type[Played]:
    clock = ManualClock()

    class Here(Played):
        pass

    Here.clock = clock
    pause = SimpleNamespace(wait=clock.advance)
    for name, value in (("Producer", Here), ("SYSTEM_CLOCK", clock), ("_PAUSE", pause)):
        monkeypatch.setattr(sender_module, name, value)
    return Here


def opened(transactional_id: str | None = "one") -> Sender:
    sender = Sender("kafka://played", SimpleNamespace(), {}, transactional_id)  # type: ignore[arg-type]
    sender.open(1)
    return sender


def test_an_id_is_asked_for_at_once_where_all_partitions_are_led(played: type[Played]) -> None:
    began_s = played.clock.monotonic_s()
    assert opened().is_open
    assert played.asked_at_s == began_s


def test_a_leader_that_is_to_come_is_waited_for(played: type[Played]) -> None:
    played.led_s = played.clock.monotonic_s() + 0.7
    opened()
    assert played.asked_at_s is not None
    assert played.led_s <= played.asked_at_s <= played.led_s + 0.1


def test_partitions_that_nobody_leads_hold_up_no_worker(played: type[Played]) -> None:
    began_s, played.led_s = played.clock.monotonic_s(), 1e9
    opened()
    assert played.asked_at_s is not None
    assert LEADERS_S <= played.asked_at_s - began_s <= LEADERS_S + 0.1


def test_where_nobody_answers_asking_says_so(played: type[Played]) -> None:
    played.answers = False
    with pytest.raises(LogUnavailableError):
        opened()
    assert played.asked_at_s is not None


def test_without_an_id_nothing_is_waited_for(played: type[Played]) -> None:
    played.led_s = 1e9
    assert opened(None).is_open
    assert played.asked_at_s is None
