"""Changelogs made by hand for tests: batches of blobs, and the naive fold that everything is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from headwater.core.batch import Batch
from headwater.table.changelog import encode_changes

Change = tuple[bytes, "bytes | None", int]
"""Key, value (None: deleted), task time."""

TOPIC = "app.live.changelog.t"


def blobs_of(changes: Sequence[Change]) -> list[bytes]:
    """Return one epoch's changes as blobs."""
    keys, values, times = ([change[at] for change in changes] for at in range(3))
    return encode_changes(keys, values, times, (0, 0, list(range(len(keys))), 0))


def batches_of(
    epochs: Iterable[Sequence[Change]], *, start: int = 0, hole: int = 0, records: int = 3
) -> Iterator[Batch]:
    """Yield batches of a changelog with one epoch a record; each batch ends with `hole` offsets without records."""
    blobs = [blob for epoch in epochs for blob in blobs_of(epoch)]
    offset = start
    for at in range(0, len(blobs), records):
        part = blobs[at : at + records]
        following = offset + len(part) + hole
        count = len(part)
        yield Batch(
            TOPIC,
            0,
            offset,
            following,
            list(range(offset, offset + count)),
            [0] * count,
            [None] * count,
            part,
        )
        offset = following


def naive_fold(changes: Iterable[Change], until: int | None = None) -> dict[bytes, bytes]:
    """Return the rows after the changes with task time <= `until`, one by one."""
    rows: dict[bytes, bytes] = {}
    for key, value, time in changes:
        if until is not None and time > until:
            continue
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
    return rows
