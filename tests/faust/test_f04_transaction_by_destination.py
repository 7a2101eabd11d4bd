"""F4: stock faust puts an output into the transaction of the partition that it goes to, and the offset into another.

An output of partition 0 for partition 1 is not committed with the offset of partition 0: after a crash the record is
done for good, and its output was never seen.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import aiokafka
import pytest

from headwater.core.batch import Append, TopicPartition
from headwater.log.interface import Transaction
from headwater.log.kafka import KafkaLog
from tests.faust.stock_kafka import committed, stock_app, transactions

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


async def test_stock_faust_commits_the_offset_without_the_output(broker: str, tmp_path: Path) -> None:
    """I1, I2: wrong value: 0 of 1 outputs are there, and the offset says that the record is done."""
    log = KafkaLog(f"kafka://{broker}")
    source, output = f"src{secrets.token_hex(3)}", f"out{secrets.token_hex(3)}"
    for topic in (source, output):
        log.create_topic(topic, 2)
    app = stock_app(broker, tmp_path, processing_guarantee="exactly_once")
    ids = [f"{app.conf.id}-0-{partition}" for partition in (0, 1)]
    async with transactions(app, **{source: 0, output: 0}) as manager:
        for each in ids:
            await manager.producer.begin_transaction(each)
        sent = await manager.send(output, None, b"of partition 0", 1, None, None)
        await sent
        assert await manager.commit({aiokafka.TopicPartition(source, 0): 1})
        # The crash: a new worker's producers of the same ids abort what is open.
    async with transactions(app, **{source: 0, output: 0}) as manager:
        for each in ids:
            await manager.producer.begin_transaction(each)
    assert await committed(broker, app, source, 0) == 1, "the record counts as done"
    end = log.end_offset(output, 1, uncommitted=True)
    assert end >= 1, "its output was written"
    assert list(log.read(output, 1, 0, end=end).values) == [], "wrong: and is lost"
    log.close()


def test_headwater_commits_outputs_to_any_partition_with_the_position(broker: str) -> None:
    log = KafkaLog(f"kafka://{broker}")
    name = f"own{secrets.token_hex(3)}"
    log.create_topic(name, 2)
    member = log.join(name, 1, lease_s=6)
    member.heartbeat()
    output = Append(name, 1, [5], [None], [b"of partition 0"])
    log.commit(Transaction([output], {TopicPartition(name, 0): 1}, member, [0]))
    assert log.positions(name) == {TopicPartition(name, 0): 1}
    assert list(log.read(name, 1, 0).values) == [b"of partition 0"]
    log.close()
