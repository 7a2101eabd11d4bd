"""As of T: a table as it stood when its task's clock passed an instant, folded from its changelog; never from a store.

For topics in event-time order this is SQL over `timestamp <= T`. Out of order it is the table when the task's time,
the greatest effective time it had processed, passed T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import AsOfError
from headwater.core.times import format_time
from headwater.table.recovery import CHUNK_BYTES, Chunk, walk_changelog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater.core.batch import Batch


def fold(batches: Iterable[Batch], until: int | None = None, *, end: int | None = None) -> dict[bytes, bytes]:
    """Return the rows after all changes with task time <= `until` (None: after all), in the changelog's order.

    Batches are followed by position, before `end` where that is given; raises RecoveryError as recovery does. Memory
    is bounded by the table's rows and one chunk, not by the changelog.
    """
    rows: dict[bytes, bytes] = {}
    chunk = Chunk()
    for _, changes in walk_changelog(batches, None, end):
        if changes is None:
            continue
        keys, values = changes.keys, changes.values
        if until is not None:
            due = pc.less_equal(changes.task_times, pa.scalar(until, pa.int64()))
            if not due.true_count:
                continue
            if due.true_count < len(due):
                keys, values = keys.filter(due), values.filter(due)
        chunk.add(keys, values)
        if chunk.nbytes >= CHUNK_BYTES:
            _apply(rows, chunk)
            chunk = Chunk()
    _apply(rows, chunk)
    return rows


def check_as_of(
    name: str, partition: int, until: int, *, kept_from: int | None, reached: int | None, at_end: bool
) -> None:
    """Raise AsOfError where a partition can't say how it stood at `until`; the message says what is kept.

    `kept_from` is the least task time the changelog (or a checkpoint before it) still answers for, None where it is
    whole. `reached` is the task's time, None before its first record. A task at its end will not change any more, so
    it answers for every later instant too.
    """
    if kept_from is not None and until < kept_from:
        raise AsOfError(
            f"table {name}/{partition} can't be shown as of {format_time(until)}: {_kept(kept_from, reached, at_end)}; "
            "ask for a later time"
        )
    if not at_end and (reached is None or reached < until):
        raise AsOfError(
            f"table {name}/{partition} can't be shown as of {format_time(until)}, which its task has not reached yet: "
            f"{_kept(kept_from, reached, at_end)}; ask for an earlier time, or wait"
        )


def _kept(kept_from: int | None, reached: int | None, at_end: bool) -> str:
    first = "the earliest record" if kept_from is None else format_time(kept_from)
    if reached is None:
        last = "nowhere: nothing is processed yet"
    else:
        last = format_time(reached) + (" and later" if at_end else "")
    return f"what is kept goes from {first} to {last}"


def _apply(rows: dict[bytes, bytes], chunk: Chunk) -> None:
    for keys, values in chunk.fold():
        for key, value in zip(keys.to_pylist(), values.to_pylist(), strict=True):
            if value is None:  # a deletion; empty bytes, 0 and a JSON null are rows
                rows.pop(key, None)
            else:
                rows[key] = value
