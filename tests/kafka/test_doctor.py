"""What `headwater doctor` says of a real broker, of transactions that hold up readers above all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from headwater.log.interface import Finding
from headwater.log.kafka.examine import examine
from headwater.log.kafka.topics import Topics
from tests.kafka.cluster import Cluster

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


def test_a_transaction_that_stays_open_is_named_with_its_place_and_what_to_do(
    new_cluster: Callable[..., Cluster],
) -> None:
    """One that ends while the doctor looks is none to tell of."""
    cluster = new_cluster(**{"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500"})
    topics = Topics(cluster.url, cluster.bootstrap, {}, first_s=30)
    topics.create("orders", 2, {})
    left, ends = (_producer(cluster, name, timeout_s) for name, timeout_s in (("left", 60), ("ends", 3)))
    for producer, partition in ((left, 1), (ends, 0)):
        producer.begin_transaction()
        producer.produce("orders", b"1", partition=partition)
        producer.commit_transaction(30)
        producer.begin_transaction()
        producer.produce("orders", b"2", partition=partition)
        producer.flush(30)
    told = _told(cluster, topics)
    assert (
        told.found == "readers wait at 1 places for a transaction that is open for 6 s and more: orders/1@2"
    )
    assert "kafka-transactions.sh abort" in told.advice
    left.abort_transaction(30)
    told = _told(cluster, topics)
    assert told.found == "none that readers wait for"
    assert told.advice == ""


def _producer(cluster: Cluster, name: str, timeout_s: int) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "transactional.id": name,
            "transaction.timeout.ms": timeout_s * 1000,
        }
    )
    producer.init_transactions(30)
    return producer


def _told(cluster: Cluster, topics: Topics) -> Finding:
    found = {finding.check: finding for finding in examine(cluster.url, topics, open_s=6)}
    return found["open transactions"]
