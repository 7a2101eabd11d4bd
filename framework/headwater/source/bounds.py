"""Where offsets begin and where times lie, over archive and log as one; asked once at a start, not on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.core.errors import HandoverGapError, OffsetTrimmedError

if TYPE_CHECKING:
    from headwater.archive.archive import Archive
    from headwater.log.interface import Log


def start_of(archive: Archive | None, log: Log, topic: str, partition: int) -> int:
    """Return the earliest offset that archive and log together have."""
    _bind(archive, log, topic)
    in_log = log.start_offset(topic, partition)
    in_archive = None if archive is None else archive.start(topic, partition)
    return in_log if in_archive is None else min(in_archive, in_log)


def offset_at_or_after(
    archive: Archive | None, log: Log, topic: str, partition: int, time_ms: int
) -> int | None:
    """Return the earliest offset whose timestamp is >= `time_ms`, or None; exact in whatever order timestamps are."""
    _bind(archive, log, topic)
    found = None if archive is None else archive.offset_for_time(topic, partition, time_ms)
    # The log is asked about what is not archived only by being asked second: what both have, both answer alike.
    return log.offset_for_time(topic, partition, time_ms) if found is None else found


def offset_after_last_before(
    archive: Archive | None, log: Log, topic: str, partition: int, time_ms: int
) -> int | None:
    """Return one past the last offset whose timestamp is < `time_ms`, or None where there is no such record."""
    _bind(archive, log, topic)
    archived = None if archive is None else archive.end(topic, partition)
    while True:
        try:
            found = _last_before_in_log(log, topic, partition, time_ms, archived or 0)
            break
        except OffsetTrimmedError:
            # Trimmed between start and read: what went is archived by now, or is gone for every reader.
            archived = None if archive is None else archive.end(topic, partition)
    if found is not None or archive is None:
        return found
    return archive.offset_after_last_before(topic, partition, time_ms)


def _last_before_in_log(log: Log, topic: str, partition: int, time_ms: int, archived: int) -> int | None:
    """Look through the part of the log that is not archived; timestamps needn't rise, so all of it is looked at."""
    position, end = max(archived, log.start_offset(topic, partition)), log.end_offset(topic, partition)
    found = None
    while position < end:
        batch = log.read(topic, partition, position, end=end)
        times = batch.timestamps
        for index in range(len(times) - 1, -1, -1):
            if times[index] < time_ms:
                found = batch.offsets[index] + 1
                break
        if batch.next <= position:
            break
        position = batch.next
    return found


def gaps(
    archive: Archive | None, log: Log, topic: str, partition: int, start: int, end: int
) -> list[tuple[int, int]]:
    """Return the ranges within [start, end) that neither archive nor log has, in order."""
    _bind(archive, log, topic)
    # The log's start before the archive: what is trimmed later is archived by then.
    in_log = log.start_offset(topic, partition)
    found: list[tuple[int, int]] = []
    segments = [] if archive is None else archive.segments(topic, partition)
    ranges = [(segment.base, segment.next) for segment in segments if segment.gap is None]
    covered = start
    for low, high in [*ranges, (in_log, max(end, in_log))]:
        if low > covered:
            found.append((covered, min(low, end)))
        covered = max(covered, high)
        if covered >= end:
            break
    return [(low, high) for low, high in found if low < high]


def check_gaps(archive: Archive | None, log: Log, topic: str, partition: int, start: int, end: int) -> None:
    """Raise HandoverGapError for the first range within [start, end) that neither archive nor log has."""
    for low, high in gaps(archive, log, topic, partition, start, end):
        raise HandoverGapError(
            f"{topic}/{partition} has no offsets {low}..{high - 1}, neither in the archive nor in the log (from "
            f"{log.start_offset(topic, partition)}); start from offset {high}, or allow gaps (--allow-gaps)",
            base=low,
            end=high,
        )


def _bind(archive: Archive | None, log: Log, topic: str) -> None:
    info = log.topic(topic)
    if archive is not None and info is not None:
        archive.bind({topic: info})
