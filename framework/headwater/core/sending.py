"""What `hot.lay_out` is given: what the sends of one agent to one topic have in common, and where each record of a task came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.core.batch import Headers


class Laid(NamedTuple):
    """Records for one partition, as columns. `sequence` holds one number: the next emit sequence of the task's channel there."""

    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers]
    sequence: list[int]


class Lane(NamedTuple):
    """Sends of one agent to one topic.

    `topic` as the sends name it; `agent`: its number; `partitions` of the topic, `otherwise`: the one for records without a key;
    `app`: the writing app's number as a varint, behind the origins of outputs; `own`: the task's partition; `columns` by
    partition, `make` those of one that has none yet.
    """

    topic: str
    agent: int
    partitions: int
    otherwise: int
    app: bytes
    own: int
    is_internal: bool
    columns: dict[int, Laid]
    make: Callable[[int], Laid]


class Causes(NamedTuple):
    """A task's rows: origins (topic number, partition, offset), own timestamps, task times, own watermarks.

    Lists by row; topic and partition are numbers where they are the same for all, `watermarks` is empty where none are kept.
    """

    topics: list[int] | int
    partitions: list[int] | int
    offsets: list[int]
    timestamps: list[int]
    times: list[int]
    watermarks: list[int]
