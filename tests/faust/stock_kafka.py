"""Stock faust against a real broker: the installed package's own driver, transaction manager and recovery; no network edge is replaced."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiokafka
import faust
from confluent_kafka import Producer
from faust.transport.consumer import TransactionManager
from faust.transport.drivers import aiokafka as driver


def stock_app(broker: str, folder: Path, **settings: Any) -> Any:
    """Return a stock app that would work on the broker."""
    return faust.App(
        f"stock{secrets.token_hex(3)}", broker=f"kafka://{broker}", web_enabled=False, datadir=str(folder),
        topic_disable_leader=True, **settings,
    )  # fmt: skip


@asynccontextmanager
async def transactions(app: Any, **groups: int) -> AsyncIterator[TransactionManager]:
    """Yield faust's transaction manager over its driver's producer; `groups`: the assignor's group of each topic."""
    producer = cast(Any, driver.Producer(app.transport))
    producer._producer = producer._new_producer()
    await producer._producer.start()
    app.assignor._topic_groups = groups
    # Which partition a record goes to is given by the tests; what is shown is which transaction it goes into.
    consumer = SimpleNamespace(key_partition=lambda topic, key, partition: partition)
    manager = TransactionManager(app.transport, consumer=cast(Any, consumer), producer=producer)
    try:
        yield manager
    finally:
        for one in list(producer._transaction_producers.values()):
            await one.stop()
        producer._transaction_producers.clear()
        await producer._producer.stop()


async def committed(broker: str, app: Any, topic: str, partition: int) -> int | None:
    """Return a group's committed offset as the broker has it."""
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=broker, group_id=app.conf.id, enable_auto_commit=False
    )
    await consumer.start()
    try:
        return cast("int | None", await consumer.committed(aiokafka.TopicPartition(topic, partition)))
    finally:
        await consumer.stop()


def send_in_transaction(broker: str, topic: str, values: list[bytes], *, abort: bool = False) -> None:
    """Produce one transaction, as someone upstream would."""
    producer = Producer({"bootstrap.servers": broker, "transactional.id": secrets.token_hex(4)})
    producer.init_transactions(60)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    producer.flush(60)
    (producer.abort_transaction if abort else producer.commit_transaction)(60)
