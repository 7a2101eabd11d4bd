"""Offsets are asked for of leaders, which change: what a client had learnt of them before is learnt anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headwater.core.batch import TopicPartition
from headwater.log.kafka.topics import Topics
from tests.kafka.cluster import Cluster

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


def test_offsets_are_told_once_a_broker_is_back(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster()
    topics = Topics(cluster.url, cluster.bootstrap, {}, first_s=30)
    topics.create("orders", 4, {})
    places = [TopicPartition("orders", partition) for partition in range(4)]
    ends = topics.ends(places)
    cluster.kill()
    # It answers before it leads its partitions again.
    cluster.restart()
    assert topics.ends(places) == ends
