"""F9: stock faust's commit says True though the producer was fenced and nothing was committed.

Tables and positions then move on (`tables.on_commit`, `_committed_offset`) past records that the log never took.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import aiokafka
import pytest

from headwater.core.batch import Append, TopicPartition
from headwater.core.errors import HeadwaterError
from headwater.log.interface import Transaction
from headwater.log.kafka import KafkaLog
from tests.faust.stock_kafka import committed, stock_app, transactions

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


async def test_stock_faust_says_that_a_fenced_commit_was_one(broker: str, tmp_path: Path) -> None:
    """I1, I4: wrong value: True, and the broker has no offset and no output."""
    log = KafkaLog(f"kafka://{broker}")
    topic = f"src{secrets.token_hex(3)}"
    log.create_topic(topic, 1)
    app = stock_app(broker, tmp_path, processing_guarantee="exactly_once")
    crashed: list[BaseException] = []

    async def crash(reason: BaseException) -> None:
        crashed.append(reason)

    app.crash = crash
    name = f"{app.conf.id}-0-0"
    async with transactions(app, **{topic: 0}) as manager:
        await manager.producer.begin_transaction(name)
        await (await manager.send(topic, None, b"output", 0, None, None))
        rival: Any = aiokafka.AIOKafkaProducer(bootstrap_servers=broker, transactional_id=name)
        await rival.start()  # another worker takes the id over
        try:
            assert await manager.commit({aiokafka.TopicPartition(topic, 0): 1}) is True, (
                "wrong: it was fenced"
            )
        finally:
            await rival.stop()
    assert crashed, "the app is told to crash, and the caller that all is well"
    assert await committed(broker, app, topic, 0) is None
    assert list(log.read(topic, 0, 0).values) == []
    log.close()


def test_headwater_raises_and_keeps_nothing(broker: str) -> None:
    log = KafkaLog(f"kafka://{broker}")
    name = f"own{secrets.token_hex(3)}"
    log.create_topic(name, 1)
    member = log.join(name, 1, lease_s=6, name="slot")
    member.heartbeat()
    rival = KafkaLog(f"kafka://{broker}")
    rival.join(name, 1, lease_s=6, name="slot")
    with pytest.raises(HeadwaterError):
        log.commit(
            Transaction(
                [Append(name, 0, [5], [None], [b"output"])], {TopicPartition(name, 0): 1}, member, [0]
            )
        )
    assert log.positions(name) == {}
    assert list(log.read(name, 0, 0).values) == []
    for each in (rival, log):
        each.close()
