"""F10: stock faust keeps transactional producers on the class, for all apps of a process, and leaves transactions open.

An app that stops takes the producers of every other app of the process with it; a partition that is given up leaves its
transaction open, and everyone who reads committed waits behind it until the broker times it out.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import pytest
from faust.transport.drivers import aiokafka as driver

from headwater.core.batch import Append
from headwater.log.interface import Transaction
from headwater.log.kafka import KafkaLog
from tests.faust.stock_kafka import stock_app, transactions

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


async def test_stock_faust_shares_producers_between_apps_and_leaves_a_transaction_open(
    broker: str, tmp_path: Path
) -> None:
    """I4, I26: wrong value: a reader sees 0 of the 1 record written behind it."""
    one, other = (driver.Producer(stock_app(broker, tmp_path).transport) for _ in range(2))
    assert one._transaction_producers is other._transaction_producers, "wrong: of all apps"
    log = KafkaLog(f"kafka://{broker}")
    topic = f"out{secrets.token_hex(3)}"
    log.create_topic(topic, 1)
    app = stock_app(broker, tmp_path, processing_guarantee="exactly_once")
    name = f"{app.conf.id}-0-0"
    async with transactions(app, **{topic: 0}) as manager:
        await manager.producer.begin_transaction(name)
        await (await manager.send(topic, None, b"of the open one", 0, None, None))
        await manager.producer.stop_transaction(name)  # what a revocation does
        log.append([Append(topic, 0, [5], [None], [b"behind it"])], atomic=False)
        assert log.end_offset(topic, 0, uncommitted=True) == 2
        assert log.end_offset(topic, 0) == 0, "wrong: readers wait"
        assert list(log.read(topic, 0, 0).values) == []
    log.close()


def test_headwater_leaves_no_transaction_open(broker: str) -> None:
    log = KafkaLog(f"kafka://{broker}")
    name = f"own{secrets.token_hex(3)}"
    log.create_topic(name, 1)
    member = log.join(name, 1, lease_s=6)
    member.heartbeat()
    sender = member.sender  # type: ignore[attr-defined]
    log.commit(Transaction([Append(name, 0, [5], [None], [b"a"])], {}, member, [0]))
    producer = sender._required()
    producer.begin_transaction()
    sender._in_transaction = True
    producer.produce(name, b"given up", partition=0)
    producer.flush(30)
    member.leave()
    end_s = time.monotonic() + 10
    while log.end_offset(name, 0) < log.end_offset(name, 0, uncommitted=True):
        assert time.monotonic() < end_s, "a transaction was left open"
        time.sleep(0.02)
    assert list(log.read(name, 0, 0).values) == [b"a"]
    log.close()
