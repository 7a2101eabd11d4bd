"""Consumer groups as the brokers keep them: positions, members, removal."""

from __future__ import annotations

import logging
from threading import Event
from typing import TYPE_CHECKING

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from headwater.core.batch import TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import GenerationError
from headwater.log.kafka.trouble import kafka_error, unavailable

if TYPE_CHECKING:
    from collections.abc import Collection

    from confluent_kafka.admin import AdminClient

log_ = logging.getLogger(__name__)

CALL_S = 15.0
BROKER_DELAY_S = 20.0
"""Brokers look for transactions that have timed out every 10 s, unless they are set otherwise."""

_PAUSE_S = 0.05
_GONE = frozenset({KafkaError.GROUP_ID_NOT_FOUND})


def group_positions(
    url: str,
    admin: AdminClient,
    group: str,
    asked: Collection[TopicPartition] = (),
    *,
    transaction_s: float = 10.0,
) -> dict[TopicPartition, int]:
    """Return a group's positions once no open transaction moves them (`require_stable`, KIP-447).

    Brokers name all partitions that have a position; one that is about to get its first must be `asked` for by name.
    `transaction_s` is how long a member's transaction may stay open. A broker that was killed may hold positions for unstable
    for ever whose transaction has ended long since (seen with 4.3): after twice that time and its own delay they are left out,
    as if they had never been given. By then whatever was open when they were first asked for is committed or aborted.
    """
    patience_s = 2 * transaction_s + BROKER_DELAY_S
    found = _positions(url, admin, ConsumerGroupTopicPartitions(group), patience_s)
    named = [KafkaPartition(*tp) for tp in sorted({*asked, *found})]
    return _positions(url, admin, ConsumerGroupTopicPartitions(group, named), patience_s) if asked else found


def _positions(
    url: str, admin: AdminClient, request: ConsumerGroupTopicPartitions, patience_s: float
) -> dict[TopicPartition, int]:
    group = request.group_id
    pause = Event()
    patient_until_s: float | None = None
    while True:
        try:
            future = admin.list_consumer_group_offsets(
                [request], require_stable=True, request_timeout=CALL_S
            )[group]
            found = future.result(CALL_S + 1)
        except (KafkaException, TimeoutError) as error:
            inner = kafka_error(error)
            code = None if inner is None else inner.code()
            if code in _GONE:
                return {}
            # Where it was heard before that they are unstable, a call that isn't answered is asked again; then no more.
            is_awaited = patient_until_s is not None and SYSTEM_CLOCK.monotonic_s() < patient_until_s
            if code != KafkaError.UNSTABLE_OFFSET_COMMIT and not (
                is_awaited and code == KafkaError._TIMED_OUT
            ):
                raise unavailable(url, f"the positions of group {group!r}", error) from error
        else:
            places = found.topic_partitions or []
            failed = [p for p in places if p.error is not None]
            for p in failed:
                if p.error.code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                    raise unavailable(url, f"the positions of group {group!r}", KafkaException(p.error))
            if patient_until_s is None or not failed:
                is_over = not failed
            else:
                is_over = SYSTEM_CLOCK.monotonic_s() >= patient_until_s
            if is_over:
                if failed:
                    log_.warning(
                        "%s says for %.0f s that a transaction is about to move the positions of group %r in %s, longer than any "
                        "may stay open; the records of epochs are read instead",
                        url,
                        patience_s,
                        group,
                        ", ".join(f"{p.topic}/{p.partition}" for p in failed),
                    )
                return {
                    TopicPartition(p.topic, p.partition): p.offset
                    for p in places
                    if p.error is None and p.offset >= 0
                }
        if patient_until_s is None:
            patient_until_s = SYSTEM_CLOCK.monotonic_s() + patience_s
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
