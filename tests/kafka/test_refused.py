"""A record that brokers refuse for itself goes to dead letters, and the rest of its epoch in order."""

from __future__ import annotations

import json
import random
import secrets
from pathlib import Path
from typing import Any

import pytest

from headwater.core.batch import Append
from headwater.core.errors import MisuseError, ValueRefusedError
from headwater.log.kafka import KafkaLog
from tests.equivalence.echoing import echoing
from tests.equivalence.world import Given, World

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

HOUR_MS = 3_600_000


def letters(world: World) -> list[tuple[bytes | None, dict[str, Any]]]:
    return [(value, json.loads(reason)) for _, value, _, reason in world.dead()]


def test_outputs_larger_than_their_topic_takes_go_to_dead_letters(broker: str, tmp_path: Path) -> None:
    name = f"large{secrets.token_hex(3)}"
    world = World(lambda: echoing(name, kafka={"max.message.bytes": "2000"}), tmp_path, f"kafka://{broker}")
    sizes = [10, 5000, 20, 30, 9000, 40]
    # By chance: brokers look at what a batch weighs when it is compressed.
    chance = random.Random(5)
    values = [json.dumps(chance.randbytes(size // 2).hex()).encode() for size in sizes]
    world.send(f"{name}-in", 1, [Given(b"k", value, 1_000_000 + n) for n, value in enumerate(values)])
    world.work()
    assert [o.value for o in world.topic(f"{name}-out")[0]] == [values[at] for at in (0, 2, 3, 5)]
    found = letters(world)
    assert sorted(value or b"" for value, _ in found) == sorted([values[1], values[4]])
    for value, reason in found:
        assert "size" in reason["message"]
        assert (reason["topic"], reason["partition"], reason["output"]) == (f"{name}-in", 0, f"{name}-out")
        assert reason["offset"] == values.index(value or b"")
    assert [json.loads(line)["value"] for line in world.dump("seen")] == [6], (
        "the record itself was processed"
    )


def test_outputs_whose_time_the_broker_refuses_go_to_dead_letters_and_the_rest_in_order(
    broker: str, tmp_path: Path
) -> None:
    """Not to be known beforehand: the broker's answer decides, and the transaction is made anew without them."""
    name = f"times{secrets.token_hex(3)}"
    kafka = {"message.timestamp.before.max.ms": str(24 * HOUR_MS)}
    world = World(lambda: echoing(name, kafka=kafka), tmp_path, f"kafka://{broker}")
    now = hw_now()
    times = [now - HOUR_MS, now - 100 * HOUR_MS, now - 2000, now - 50 * HOUR_MS, now - 1000]
    values = [json.dumps(f"v{n}").encode() for n in range(len(times))]
    world.send(f"{name}-in", 1, [Given(b"k", value, time) for value, time in zip(values, times, strict=True)])
    world.work()
    assert [o.value for o in world.topic(f"{name}-out")[0]] == [values[at] for at in (0, 2, 4)]
    assert [o.timestamp for o in world.topic(f"{name}-out")[0]] == [times[at] for at in (0, 2, 4)]
    assert sorted(value or b"" for value, _ in letters(world)) == [values[1], values[3]]


def hw_now() -> int:
    from headwater.core.clock import SYSTEM_CLOCK

    return SYSTEM_CLOCK.now_ms()


def test_without_anybody_to_divert_it_a_refused_record_refuses_the_whole(broker: str) -> None:
    log = KafkaLog(f"kafka://{broker}")
    topic = f"small{secrets.token_hex(3)}"
    log.create_topic(topic, 1, {"max.message.bytes": "1000"})
    with pytest.raises(ValueRefusedError, match=rf"{topic}/0.*size"):
        log.append([Append(topic, 0, [5, 5], [None, None], [b"x", random.Random(6).randbytes(5000)])])
    assert list(log.read(topic, 0, 0).values) == []
    log.append([Append(topic, 0, [5], [None], [b"z"])])
    assert list(log.read(topic, 0, 0).values) == [b"z"]
    log.close()


def test_a_topic_that_is_kept_otherwise_than_declared_is_named_and_not_altered(broker: str) -> None:
    log = KafkaLog(f"kafka://{broker}")
    topic = f"kept{secrets.token_hex(3)}"
    log.create_topic(topic, 1)
    with pytest.raises(MisuseError, match=r"cleanup\.policy=delete, declared is compact"):
        log.create_topic(topic, 1, {"cleanup.policy": "compact"})
    with pytest.raises(MisuseError, match="can't be made as declared"):
        log.create_topic(f"{topic}2", 1, {"cleanup.policy": "nonsense"})
    log.create_topic(topic, 1, {"cleanup.policy": "delete"})
    log.close()


def test_event_times_that_kafka_can_not_hold_are_held_beside(broker: str) -> None:
    log = KafkaLog(f"kafka://{broker}")
    topic = f"odd{secrets.token_hex(3)}"
    log.create_topic(topic, 1)
    times = [0, -5, 1, 2**62, 1_700_000_000_000]
    log.append([Append(topic, 0, times, [None] * 5, [b"v"] * 5)])
    batch = log.read(topic, 0, 0)
    assert list(batch.timestamps) == times
    assert not any(dict(batch.headers_at(at)) for at in range(5))
    log.close()
