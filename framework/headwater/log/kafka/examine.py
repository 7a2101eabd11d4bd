"""What `headwater doctor` says of a cluster: its brokers, those of their settings that exactly once hangs on, open transactions."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from headwater.core.batch import TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.log.interface import Finding
from headwater.log.kafka.trouble import kafka_error, unavailable

if TYPE_CHECKING:
    from collections.abc import Collection

    from headwater.log.kafka.topics import Topics

CALL_S = 15.0
OPEN_S = 12.0
"""A transaction that is open for longer is told of: a worker's is aborted after `transaction.timeout.ms`, 10 s, or less."""
LOOK_S = 1.0
NAMED_MAX = 5

_PAUSE = Event()


def examine(url: str, topics: Topics, *, open_s: float = OPEN_S) -> list[Finding]:
    """Return what was found. Raises LogInterruptedError, LogUnavailableError.

    It takes up to `open_s` where transactions are open: whether they end is waited for.
    """
    admin = topics.admin
    client = f"confluent-kafka {confluent_kafka.version()}, librdkafka {confluent_kafka.libversion()[0]}"
    try:
        cluster = admin.describe_cluster(request_timeout=CALL_S).result(CALL_S + 1)
        node = cluster.controller or cluster.nodes[0]
        config = _config(admin, str(node.id))
    except (KafkaException, TimeoutError) as error:
        raise unavailable(url, "describing the cluster", error) from error
    brokers = len(cluster.nodes)
    found = [
        Finding("client", client),
        Finding("brokers", f"{brokers}, cluster {cluster.cluster_id}"),
        _SETTINGS_HIDDEN if config is None else _copies(config, brokers),
    ]
    config = config or {}
    for name, least, advice in _AT_LEAST:
        value = config.get(name)
        if value is not None:
            found.append(Finding(name, value, advice if int(value) < least else ""))
    for name, most, advice in _AT_MOST:
        value = config.get(name)
        if value is not None:
            found.append(Finding(name, value, advice if int(value) > most else ""))
    found.append(_open_transactions(topics, open_s))
    return found


def _config(admin: AdminClient, node: str) -> dict[str, str | None] | None:
    """Return a broker's settings, or None where this user may not see them: an app needs no such right."""
    resource = ConfigResource(ConfigResource.Type.BROKER, node)
    try:
        answered = admin.describe_configs([resource], request_timeout=CALL_S)[resource].result(CALL_S + 1)
    except KafkaException as error:
        inner = kafka_error(error)
        if inner is not None and inner.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            return None
        raise
    return {name: entry.value for name, entry in answered.items()}


_SETTINGS_HIDDEN = Finding(
    "broker settings", "not shown to this user: that takes DescribeConfigs on the cluster"
)


def _open_transactions(topics: Topics, open_s: float) -> Finding:
    """Look for transactions that hold up readers and do not end: for ever, where a broker has lost their end."""
    check = "open transactions"
    deadline_s = SYSTEM_CLOCK.monotonic_s() + open_s
    everywhere = [TopicPartition(i.name, p) for i in topics.all().values() for p in range(i.partitions)]
    held = _held_up(topics, everywhere)
    while held and SYSTEM_CLOCK.monotonic_s() < deadline_s:
        _PAUSE.wait(LOOK_S)
        now = _held_up(topics, held)
        held = {tp: offset for tp, offset in held.items() if now.get(tp) == offset}
    if not held:
        return Finding(check, "none that readers wait for")
    places = [f"{tp}@{offset}" for tp, offset in sorted(held.items())]
    shown = ", ".join(places[:NAMED_MAX]) + (", …" if len(places) > NAMED_MAX else "")
    return Finding(
        check,
        f"readers wait at {len(places)} places for a transaction that is open for {open_s:.0f} s and more: {shown}",
        "where no producer is at work on it, a broker has lost its end: `kafka-transactions.sh find-hanging` tells whose it is, "
        "`kafka-transactions.sh abort --topic T --partition P --start-offset OFFSET` ends it",
    )


def _held_up(topics: Topics, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the last stable offset of those partitions that have records behind it."""
    stable, ends = topics.ends(partitions), topics.ends(partitions, committed=False)
    return {tp: offset for tp, offset in stable.items() if offset < ends[tp]}


def _copies(config: dict[str, str | None], brokers: int) -> Finding:
    replicas = int(config.get("default.replication.factor") or 1)
    in_sync = int(config.get("min.insync.replicas") or 1)
    advice = ""
    if brokers > 1 and replicas < 2:
        advice = "set default.replication.factor=3: topics made now have one copy, and a broker's disk is the only one"
    elif replicas > 1 and in_sync < 2:
        advice = "set min.insync.replicas=2: one broker alone may take records that are lost with it"
    elif replicas > 1 and in_sync >= replicas:
        advice = (
            "set min.insync.replicas below the number of copies: with one broker down nothing can be written"
        )
    return Finding("copies", f"{replicas} of each topic made now, {in_sync} must have a record", advice)


_AT_LEAST = (
    (
        "transaction.max.timeout.ms",
        60_000,
        "raise it to 60000 or more: `headwater send` keeps a transaction open that long",
    ),
    (
        "offsets.retention.minutes",
        60,
        "raise it: positions of an idle group are forgotten, and the epochs topic is read whole at the next start",
    ),
)
_AT_MOST = (
    (
        "group.min.session.timeout.ms",
        10_000,
        "lower it to App(lease_s=…) or less: joining with a shorter session is refused",
    ),
)
