"""Check every byte, record and place of a partition's segments, trusting none of them; it repairs nothing.

Orphans (files not named as a segment) and temporary files are no part of the archive, so they are no findings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from headwater.archive import layout
from headwater.archive.checksum import RecordDigest, crc32c
from headwater.archive.meta import read_meta
from headwater.archive.reader import SegmentReader, read_footer
from headwater.core.errors import SegmentCorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from headwater.archive.segment import Footer, Place, RowGroup
    from headwater.archive.storage import Store

_COLUMNS = ("offset", "timestamp", "timestamp_type", "key", "value", "headers", "topic_partition")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: in which file, about offsets [base, next). `error` is False for gaps that were recorded.

    Kinds: `gap` (recorded), `missing`, `overlap`, `footer`, `bytes`, `page`, `records`, `bounds`, `place`, `meta`.
    """

    kind: str
    topic: str
    partition: int
    base: int
    next: int
    path: str
    message: str
    error: bool = True


def verify_meta(store: Store, folder: str, topic: str, topic_id: str) -> Iterator[Finding]:
    """Yield what is wrong with a topic's `_meta.json`."""
    path = f"{folder}/{layout.META}"
    try:
        meta = read_meta(store, folder)
    except SegmentCorruptError as error:
        yield Finding("meta", topic, -1, 0, 0, path, str(error))
        return
    if meta is None:
        yield Finding(
            "meta", topic, -1, 0, 0, path, f"{path} is missing; an archiver that runs on writes it anew"
        )
    elif (meta["topic"], meta["topic_id"]) != (topic, topic_id):
        message = (
            f"{path} is of topic {meta['topic']} (id {meta['topic_id']}), expected {topic} (id {topic_id})"
        )
        yield Finding("meta", topic, -1, 0, 0, path, message)


def verify_partition(store: Store, place: Place, folder: str, bases: Sequence[int]) -> Iterator[Finding]:
    """Yield what is wrong with a partition's segments, in order."""
    expected: int | None = 0
    for index, base in enumerate(bases):
        path = f"{folder}/{layout.segment_name(base)}"
        following = bases[index + 1] if index + 1 < len(bases) else base
        if expected is not None and base != expected:
            kind, low, high = ("missing", expected, base) if base > expected else ("overlap", base, expected)
            what = "are in no segment" if kind == "missing" else "are in two segments"
            message = f"{place}: offsets {low}..{high - 1} {what}; found before {path}"
            yield Finding(kind, place.topic, place.partition, low, high, path, message)
        try:
            footer = read_footer(store, path)
        except (SegmentCorruptError, FileNotFoundError) as error:
            # Where it ends is not known, so the next one's beginning is taken for it.
            yield Finding("footer", place.topic, place.partition, base, following, path, str(error))
            expected = None
            continue
        expected = footer.next
        yield from _verify_segment(store, place, path, base, footer)


def _verify_segment(store: Store, place: Place, path: str, base: int, footer: Footer) -> Iterator[Finding]:
    def finding(
        kind: str, message: str, *, low: int = base, high: int = footer.next, error: bool = True
    ) -> Finding:
        text = f"{path} ({place}@[{low}, {high})): {message}"
        return Finding(kind, place.topic, place.partition, low, high, path, text, error)

    if (footer.place, footer.base) != (place, base):
        yield finding(
            "place",
            f"it says it is {footer.place}@{footer.base} of log {footer.place.log_id}, topic id {footer.place.topic_id}",
        )
        return
    if footer.gap is not None:
        yield finding("gap", f"recorded gap: {footer.gap}", error=False)
    reader = SegmentReader(store, path, footer)
    digest, rows, last, times, whole = RecordDigest(), 0, base - 1, _Bounds(), True
    if not footer.row_groups:
        head = store.get_range(path, 0, footer.pages_end)
        if crc32c(head) != footer.piece_crcs[0]:
            yield finding("bytes", "its first bytes don't have their checksum")
    for group in footer.row_groups:
        low, high = reader.covers(group.index)
        try:
            batch = reader.columns(group, _COLUMNS)
        except SegmentCorruptError as error:
            whole = False
            yield finding("page" if "page can't" in str(error) else "bytes", str(error), low=low, high=high)
            last = high - 1
            continue
        problem = _group_problem(batch, group, last, footer)
        if problem:
            yield finding("bounds", problem, low=low, high=high)
        digest.update(batch)
        rows += batch.num_rows
        times.add(group.time_min, group.time_max)
        last = batch.column("offset")[-1].as_py()
    if not whole:
        return
    if digest.value() != footer.record_crc:
        yield finding(
            "records", f"the records have checksum {digest.value():08x}, expected {footer.record_crc:08x}"
        )
    if rows != footer.count:
        yield finding("records", f"{rows} records, expected {footer.count}")
    if (times.low, times.high) != (footer.min_time, footer.max_time):
        found, expected = (times.low, times.high), (footer.min_time, footer.max_time)
        yield finding(
            "bounds", f"timestamps from {found[0]} to {found[1]}, expected {expected[0]} to {expected[1]}"
        )


class _Bounds:
    """Least and greatest of numbers that come in pairs."""

    def __init__(self) -> None:
        self.low: int | None = None
        self.high: int | None = None

    def add(self, low: int, high: int) -> None:
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)


def _group_problem(batch: pa.RecordBatch, group: RowGroup, last: int, footer: Footer) -> str | None:
    """Return what is wrong with a row group's offsets, timestamps and constant columns, or None."""
    offsets, times = batch.column("offset"), batch.column("timestamp")
    if len(offsets) > 1 and not pc.all(pc.greater(offsets[1:], offsets[:-1])).as_py():
        return "offsets don't rise"
    first, final = offsets[0].as_py(), offsets[-1].as_py()
    if first <= last or final >= footer.next:
        return f"offsets run from {first} to {final}, expected within [{last + 1}, {footer.next})"
    bounds = pc.min_max(times).as_py()
    found = (first, final, bounds["min"], bounds["max"])
    expected = (group.offset_min, group.offset_max, group.time_min, group.time_max)
    if found != expected:
        return f"least and greatest offset and timestamp are {found}, the footer says {expected}"
    partitions = pc.min_max(batch.column("topic_partition")).as_py()
    if (partitions["min"], partitions["max"]) != (footer.place.partition, footer.place.partition):
        return f"topic_partition is {partitions['min']} to {partitions['max']}, expected {footer.place.partition}"
    return None
