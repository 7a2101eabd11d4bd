"""`headwater read`: a topic's records, archive and log as one, as envelopes."""

from __future__ import annotations

import heapq
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import click

from headwater.cli.command import command
from headwater.cli.output import json_line
from headwater.cli.session import Session, pass_session
from headwater.core.envelope import to_envelope
from headwater.core.errors import TimeRangeError, UnknownNameError
from headwater.core.header import is_end_of_time
from headwater.core.times import EARLIEST, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.core.batch import Headers

_WAKE_S = 0.02
_FOREVER = 1 << 63


class Record(NamedTuple):
    """A record as it is shown; sorts by effective time, then place."""

    effective: int
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


Positions: TypeAlias = "dict[int, int]"


@command(
    "read",
    example="headwater read departures --from 2013-01-05 --until 2013-01-06 --limit 10",
)
@click.argument("topic")
@click.option(
    "--from", "time_from", metavar="T", help="From this record time on (ISO 8601, ms, earliest, now)."
)
@click.option("--until", "time_until", metavar="U", help="Before this record time.")
@click.option("--partition", type=click.IntRange(0), metavar="P", help="Only this partition.")
@click.option("--follow", is_flag=True, help="Go on as records come; stop with Ctrl-C.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after N records.")
@click.option(
    "--generation", metavar="NAME", help="What this generation wrote to the topic while it was not promoted."
)
@click.option(
    "--raw", is_flag=True, help="Keys, values and headers as base64 always; the engine's headers too."
)
@pass_session
def read(
    session: Session,
    topic: str,
    time_from: str | None,
    time_until: str | None,
    partition: int | None,
    follow: bool,
    limit: int | None,
    generation: str | None,
    raw: bool,
) -> None:
    """Show a topic's records, archive and log as one.

    Partitions are merged by time, each in its own order. Envelopes, one JSON object a line.
    """
    from headwater.engine.history import require_topic

    low = EARLIEST if time_from is None else session.time(time_from)
    high = _FOREVER if time_until is None else session.time(time_until)
    if low >= high:
        raise TimeRangeError(
            f"--from {format_time(low)} is not before --until {format_time(high)}; exchange them"
        )
    if generation is not None:
        topic = shadow_topic(session, generation, topic)
    partitions = require_topic(session.log, session.archive, topic)
    if partition is not None:
        if partition not in partitions:
            raise UnknownNameError(
                f"topic {topic!r} has no partition {partition}; it has {len(partitions)}: 0 to {len(partitions) - 1}"
            )
        partitions = [partition]
    positions: Positions = {}
    left = -1 if limit is None else limit
    for record in _merged(session, topic, partitions, low, positions):
        if low <= record.timestamp < high:
            _show(session, topic, record, raw=raw)
            left -= 1
            if left == 0:
                return
    if follow:
        # Ctrl-C is how a follower ends.
        with suppress(KeyboardInterrupt):
            _follow(session, topic, positions, (low, high), left, raw=raw)


def shadow_topic(session: Session, generation: str, topic: str) -> str:
    """Return where a generation's output of a topic is: its shadow, or for the first generation the topic itself."""
    from headwater.engine.generation import output_topic

    session.control.generation(generation)
    return output_topic(session.app_id, generation, topic)


def _merged(
    session: Session, topic: str, partitions: list[int], low: int, positions: Positions
) -> Iterator[Record]:
    """Yield what is there now, noting in `positions` how far it goes."""
    parts = [_records(session, topic, partition, low, positions) for partition in partitions]
    return parts[0] if len(parts) == 1 else heapq.merge(*parts, key=lambda record: record[:3])


def _records(
    session: Session, topic: str, partition: int, low: int, positions: Positions
) -> Iterator[Record]:
    from headwater.engine.history import range_of, read_topic
    from headwater.source.bounds import offset_at_or_after

    start, end = range_of(session.log, session.archive, topic, partition)
    if low != EARLIEST and session.log.topic(topic) is not None:
        found = offset_at_or_after(session.archive, session.log, topic, partition, low)
        start = end if found is None else found
    positions[partition] = end
    effective = EARLIEST
    for batch in read_topic(session.log, session.archive, topic, partition, start, end):
        columns = zip(batch.offsets, batch.timestamps, batch.keys, batch.values, strict=True)
        for index, (offset, timestamp, key, value) in enumerate(columns):
            if value is None and key is None and is_end_of_time(batch.headers_at(index)):
                continue  # a mark is no record
            effective = max(effective, timestamp)
            yield Record(effective, partition, offset, timestamp, key, value, batch.headers_at(index))


def _follow(
    session: Session, topic: str, positions: Positions, times: tuple[int, int], left: int, *, raw: bool
) -> None:
    """Show records as they come."""
    from threading import Event

    from headwater.engine.history import read_topic

    never = Event()
    version = None
    while True:
        now = session.log.version()
        if now == version:
            session.output.flush()
            never.wait(_WAKE_S)
            continue
        version = now
        for partition, position in positions.items():
            for batch in read_topic(session.log, session.archive, topic, partition, position):
                positions[partition] = batch.next
                columns = zip(batch.offsets, batch.timestamps, batch.keys, batch.values, strict=True)
                for index, (offset, timestamp, key, value) in enumerate(columns):
                    headers = batch.headers_at(index)
                    if not times[0] <= timestamp < times[1]:
                        continue
                    if value is None and key is None and is_end_of_time(headers):
                        continue
                    record = Record(0, partition, offset, timestamp, key, value, headers)
                    _show(session, topic, record, raw=raw)
                    left -= 1
                    if left == 0:
                        return


def _show(session: Session, topic: str, record: Record, *, raw: bool) -> None:
    envelope: dict[str, Any] = to_envelope(
        topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        record.headers,
        raw=raw,
    )
    session.output.write(json_line(envelope))
