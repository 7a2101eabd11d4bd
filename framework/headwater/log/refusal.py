"""Refusals that every log words alike: unknown topics and partitions, trimmed offsets, partition counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.core.errors import (
    MisuseError,
    OffsetTrimmedError,
    PartitionCountError,
    UnknownNameError,
    did_you_mean,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


def unknown_topic(url: str, topic: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a topic that isn't there."""
    return UnknownNameError(f"no topic {topic!r} in the log {url}{did_you_mean(topic, known)}")


def unknown_partition(url: str, topic: str, partition: int, partitions: int) -> UnknownNameError:
    """Return the error for a partition that a topic hasn't got."""
    return UnknownNameError(
        f"no partition {partition} in topic {topic!r} of the log {url}; it has {partitions}: 0 to {partitions - 1}"
    )


def trimmed(topic: str, partition: int, offset: int, start: int) -> OffsetTrimmedError:
    """Return the error for a read below the start."""
    return OffsetTrimmedError(
        f"{topic}/{partition}@{offset} was trimmed from the log, which starts at {start}; read it from the archive, or "
        f"start at {start}",
        start=start,
    )


def check_partitions(topic: str, partitions: int, found: int | None) -> None:
    """Raise where a topic can't be made with that many partitions, or is there with another number."""
    if partitions < 1:
        raise MisuseError(f"topic {topic!r} can't have {partitions} partitions; give 1 or more")
    if found is not None and found != partitions:
        raise PartitionCountError(
            f"topic {topic!r} has {found} partitions, asked for {partitions}; declare {found}, or use another topic name"
        )
