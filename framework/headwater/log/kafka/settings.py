"""What is told to librdkafka: the user's settings, those the engine must own, and what was measured to matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.core.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Mapping

OWNED = frozenset(
    {
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "isolation.level",
        "transactional.id",
    }
)
"""Exactly-once hangs on these: the engine sets them."""

CONSUMER_ONLY = (
    "fetch.",
    "queued.",
    "group.",
    "session.",
    "heartbeat.",
    "max.poll",
    "partition.",
    "check.crcs",
)
PRODUCER_ONLY = (
    "linger.", "batch.", "compression.", "queue.buffering", "acks", "request.required", "message.timeout",
    "delivery.timeout", "transaction.", "partitioner", "message.send",
)  # fmt: skip

_SHARED = {
    "client.id": "headwater",
    # The worker words what matters itself; librdkafka's own lines go out with `debug`.
    "log_level": "2",
    "reconnect.backoff.max.ms": "2000",
    "topic.metadata.refresh.interval.ms": "30000",
}
_READER = {
    "isolation.level": "read_committed",
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "error",
    # The position after transaction markers and compacted holes is told by this event alone.
    "enable.partition.eof": "true",
    "check.crcs": "true",
    # Also how long it takes to hear that a partition has nothing more.
    "fetch.wait.max.ms": "50",
    # With the default of 1 s the fetcher stalls whenever its queue is full: 150 k instead of 820 k records/s.
    "fetch.queue.backoff.ms": "2",
    "queued.min.messages": "200000",
    "queued.max.messages.kbytes": "32768",
}
_PRODUCER = {
    "enable.idempotence": "true",
    "linger.ms": "2",
    # A broker refuses a new transaction while the last one's markers are on their way, which takes some milliseconds. Backs off
    # from here, twice as long each time.
    "retry.backoff.ms": "4",
    "queue.buffering.max.messages": "1000000",
    "queue.buffering.max.kbytes": "1048576",
    "compression.type": "lz4",
    "message.max.bytes": "16777216",
}


def check_settings(given: Mapping[str, str]) -> dict[str, str]:
    """Return the user's settings. Raises MisuseError for one that the engine owns."""
    for name in given:
        if name in OWNED:
            raise MisuseError(
                f"the Kafka setting {name!r} is the engine's own: exactly once hangs on it; leave it out"
            )
    return {name: str(value) for name, value in given.items()}


def admin_settings(servers: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of an admin client."""
    chosen = {n: v for n, v in given.items() if not n.startswith(CONSUMER_ONLY + PRODUCER_ONLY)}
    return {**_SHARED, **chosen, "bootstrap.servers": servers}


def reader_settings(servers: str, given: Mapping[str, str], group: str) -> dict[str, str]:
    """Return the settings of a consumer with manual assignment; it needs a group's name and never uses it."""
    chosen = {n: v for n, v in given.items() if not n.startswith(PRODUCER_ONLY)}
    for name in ("group.protocol", "group.instance.id", "group.remote.assignor"):
        chosen.pop(name, None)
    return {**_SHARED, **_READER, **chosen, "bootstrap.servers": servers, "group.id": group}


def member_settings(
    servers: str, given: Mapping[str, str], group: str, session_s: float, process: int | None
) -> dict[str, str]:
    """Return the settings of a consumer that only says who owns which task; it is static where one is asked for and there is a `process`."""
    chosen = {n: v for n, v in given.items() if not n.startswith(PRODUCER_ONLY)}
    settings = {**_SHARED, **_READER, **chosen, "bootstrap.servers": servers, "group.id": group}
    instance = settings.pop("group.instance.id", "")
    if instance and process is not None:
        settings["group.instance.id"] = f"{instance}-{process}"
    settings["queued.min.messages"] = "1"
    # It owns partitions of a topic without records; what the group's positions of it say is no offset of it.
    settings["auto.offset.reset"] = "latest"
    settings["enable.partition.eof"] = "false"
    if settings.get("group.protocol", "classic").lower() != "consumer":
        settings.setdefault("session.timeout.ms", str(max(1000, int(session_s * 1000))))
        # A member hears of a rebalance with its next heartbeat: this is most of what one takes.
        settings.setdefault("heartbeat.interval.ms", str(max(100, min(300, int(session_s * 1000 / 6)))))
        settings.setdefault("partition.assignment.strategy", "cooperative-sticky")
    return settings


def producer_settings(
    servers: str, given: Mapping[str, str], transactional_id: str | None = None, transaction_s: float = 10.0
) -> dict[str, str]:
    """Return the settings of a producer, in transactions where it has an id."""
    chosen = {n: v for n, v in given.items() if not n.startswith(CONSUMER_ONLY)}
    settings = {**_SHARED, **_PRODUCER, **chosen, "bootstrap.servers": servers}
    if transactional_id is not None:
        settings["transactional.id"] = transactional_id
        # A transaction is opened only to be committed at once: one that hangs must not block readers for long.
        settings.setdefault("transaction.timeout.ms", str(max(1000, int(transaction_s * 1000))))
        settings.setdefault("message.timeout.ms", settings["transaction.timeout.ms"])
    else:
        settings.setdefault("message.timeout.ms", "30000")
    return settings
