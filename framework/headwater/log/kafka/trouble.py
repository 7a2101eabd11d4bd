"""librdkafka's errors as our own, each with what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException

from headwater.core.errors import FencedError, HeadwaterError, LogInterruptedError, LogUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

_FENCED = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError._FENCED,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
)
MOVED_ON = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.STALE_MEMBER_EPOCH}
)
"""The group's generation is another than the commit named: its tasks may still be this member's."""

UNKNOWN_PLACE = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)
"""No such topic or partition, or the broker that was asked hasn't heard of it yet."""

MOVING = UNKNOWN_PLACE | frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError._NOENT,  # "no leaders found"
    }
)
"""A leader is being chosen, or its broker doesn't know of it yet. Admin calls don't try again by themselves."""

REFUSED_RECORD = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD}
)
_DENIED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError._SSL,
    }
)


def is_denied(error: KafkaError) -> bool:
    """Tell whether trying again without other settings or rights is of no use."""
    return error.code() in _DENIED


def kafka_error(error: BaseException) -> KafkaError | None:
    """Return librdkafka's error inside an exception."""
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0]
    return None


def unavailable(url: str, what: str, error: BaseException) -> HeadwaterError:
    """Return the error for a call that the brokers didn't answer or refused."""
    inner = kafka_error(error)
    reason = str(error) if inner is None else inner.str() or inner.name()
    if inner is not None and is_denied(inner):
        return LogUnavailableError(
            f"{url} refuses {what}: {reason}; check the Kafka settings (sasl.*, ssl.*) and the ACLs (see `headwater doctor`)"
        )
    return LogInterruptedError(
        f"{url} does not answer: {what}: {reason}; check that the brokers run and can be reached (see `headwater doctor`)"
    )


def failed_commit(group: str, error: BaseException) -> HeadwaterError:
    """Return the error for a transaction that failed, or whose outcome isn't known: nothing of it may be assumed."""
    inner = kafka_error(error)
    reason = str(error) if inner is None else f"{inner.name()}: {inner.str()}"
    if inner is not None and inner.code() == KafkaError.FENCED_INSTANCE_ID:
        return replaced(group)
    if inner is not None and inner.code() in _FENCED:
        return FencedError(
            f"group {group!r} went on without this member ({reason}); nothing of this call was kept, join anew"
        )
    return LogInterruptedError(
        f"the epoch of group {group!r} was not committed, or it is not known whether it was ({reason}); it begins anew from "
        "the group's positions"
    )


def replaced(group: str, told: str = "fenced") -> LogUnavailableError:
    """Return the error of a static member whose name another process has.

    By the classic protocol the later one has it, and if the earlier tried again, neither would ever end. By the consumer protocol
    the earlier keeps it, which may be one that was killed: it is tried again.
    """
    if "still used" in told:
        return LogInterruptedError(
            f"group {group!r} still has a static member of this name; it is free once that one's session has run out, and if it "
            "runs on another machine, give each its own group.instance.id"
        )
    return LogUnavailableError(
        f"another process has joined group {group!r} as the same static member, so this one ends; give each machine a "
        "group.instance.id of its own"
    )


def answered(url: str, what: str, call: Callable[[], object]) -> object:
    """Return what a call returns. Raises LogInterruptedError or LogUnavailableError for librdkafka's errors."""
    try:
        return call()
    except KafkaException as error:
        raise unavailable(url, what, error) from error
