"""What `headwater doctor` says of a cluster: its brokers, and those of their settings that exactly once hangs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import confluent_kafka
from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource

from headwater.log.interface import Finding
from headwater.log.kafka.trouble import unavailable

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

CALL_S = 15.0
HOUR_MS = 3_600_000


def examine(url: str, admin: AdminClient) -> list[Finding]:
    """Return what was found. Raises LogInterruptedError, LogUnavailableError."""
    client = f"confluent-kafka {confluent_kafka.version()}, librdkafka {confluent_kafka.libversion()[0]}"
    try:
        cluster = admin.describe_cluster(request_timeout=CALL_S).result(CALL_S + 1)
        node = cluster.controller or cluster.nodes[0]
        resource = ConfigResource(ConfigResource.Type.BROKER, str(node.id))
        answered = admin.describe_configs([resource], request_timeout=CALL_S)[resource].result(CALL_S + 1)
    except (KafkaException, TimeoutError) as error:
        raise unavailable(url, "describing the cluster", error) from error
    config = {name: entry.value for name, entry in answered.items()}
    brokers = len(cluster.nodes)
    found = [
        Finding("client", client),
        Finding("brokers", f"{brokers}, cluster {cluster.cluster_id}"),
        _copies(config, brokers),
    ]
    for name, least, advice in _AT_LEAST:
        value = config.get(name)
        if value is not None:
            found.append(Finding(name, value, advice if int(value) < least else ""))
    for name, most, advice in _AT_MOST:
        value = config.get(name)
        if value is not None:
            found.append(Finding(name, value, advice if int(value) > most else ""))
    return found


def _copies(config: dict[str, str], brokers: int) -> Finding:
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
