"""Consumer groups as the brokers keep them: positions, members, removal."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from headwater.core.batch import TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import GenerationError, LogInterruptedError
from headwater.log.kafka.trouble import kafka_error, unavailable

if TYPE_CHECKING:
    from collections.abc import Collection

    from confluent_kafka.admin import AdminClient

CALL_S = 15.0
STABLE_S = 60.0
"""How long positions are waited for that an open transaction is about to move."""

_PAUSE_S = 0.05
_GONE = frozenset({KafkaError.GROUP_ID_NOT_FOUND})


def group_positions(
    url: str, admin: AdminClient, group: str, asked: Collection[TopicPartition] = ()
) -> dict[TopicPartition, int]:
    """Return a group's positions once no open transaction moves them (`require_stable`, KIP-447).

    Brokers name all partitions that have a position; one that is about to get its first must be `asked` for by name.
    """
    found = _positions(url, admin, ConsumerGroupTopicPartitions(group))
    named = [KafkaPartition(*tp) for tp in sorted({*asked, *found})]
    return _positions(url, admin, ConsumerGroupTopicPartitions(group, named)) if asked else found


def _positions(
    url: str, admin: AdminClient, request: ConsumerGroupTopicPartitions
) -> dict[TopicPartition, int]:
    group = request.group_id
    deadline_s = SYSTEM_CLOCK.monotonic_s() + STABLE_S
    pause = Event()
    while True:
        try:
            future = admin.list_consumer_group_offsets(
                [request], require_stable=True, request_timeout=CALL_S
            )[group]
            found = future.result(CALL_S + 1)
        except (KafkaException, TimeoutError) as error:
            inner = kafka_error(error)
            if inner is None or inner.code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                if inner is not None and inner.code() in _GONE:
                    return {}
                raise unavailable(url, f"the positions of group {group!r}", error) from error
        else:
            places = found.topic_partitions or []
            if not any(p.error is not None for p in places):
                return {TopicPartition(p.topic, p.partition): p.offset for p in places if p.offset >= 0}
            other = next(
                (
                    p.error
                    for p in places
                    if p.error is not None and p.error.code() != KafkaError.UNSTABLE_OFFSET_COMMIT
                ),
                None,
            )
            if other is not None:
                raise unavailable(url, f"the positions of group {group!r}", KafkaException(other))
        if SYSTEM_CLOCK.monotonic_s() > deadline_s:
            raise LogInterruptedError(
                f"the positions of group {group!r} are about to be moved by a transaction that doesn't end; is a worker of it "
                "hanging? try again once its transaction has timed out"
            )
        pause.wait(_PAUSE_S)


def group_members(url: str, admin: AdminClient, group: str) -> int:
    """Return how many members a group has; those that died count until their session runs out."""
    try:
        found = admin.describe_consumer_groups([group], request_timeout=CALL_S)[group].result(CALL_S + 1)
    except (KafkaException, TimeoutError) as error:
        inner = kafka_error(error)
        if inner is not None and inner.code() in _GONE:
            return 0
        raise unavailable(url, f"the members of group {group!r}", error) from error
    return len(found.members)


def remove_group(url: str, admin: AdminClient, group: str) -> None:
    """Remove a group with its positions. Raises GenerationError while it has members."""
    try:
        admin.delete_consumer_groups([group], request_timeout=CALL_S)[group].result(CALL_S + 1)
    except (KafkaException, TimeoutError) as error:
        inner = kafka_error(error)
        if inner is not None and inner.code() in _GONE:
            return
        if inner is not None and inner.code() == KafkaError.NON_EMPTY_GROUP:
            raise GenerationError(
                f"group {group!r} still has members; stop its workers, or wait until their sessions have run out"
            ) from error
        raise unavailable(url, f"removing the group {group!r}", error) from error
