"""Frames for tests: an agent with records in hand, over table parts in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from headwater.app.table import Table
from headwater.core.keys import key_text
from headwater.stream.frame import CURRENT, Frame, Rows, Work
from headwater.table.behind import WriteBehind
from headwater.table.part import TablePart
from headwater.table.store import MemoryStore

Change = tuple[str | bytes, bytes | None, int]


def changes_of(part: TablePart) -> list[Change]:
    """End the open epoch; return its changes: (key, encoded value or None for deleted, row)."""
    found = part.cut()
    keys = [key_text(key) for key in found.keys.to_pylist()]
    return list(zip(keys, found.values.to_pylist(), found.rows.to_pylist(), strict=True))


def frame_over(
    *tables: Table, keys: Sequence[bytes | None] = (b"k",), partition: int = 0, partitions: int = 1
) -> Frame:
    """Return a frame with a part for each table and one row for each key, the first in hand."""
    rows = Rows()
    frame = Frame("tester", rows)
    for table in tables:
        frame.parts[table.number] = TablePart(
            table.name, table.number, partition, partitions, WriteBehind(MemoryStore()), table.codec,
            default=table.default, local=table.local,
        )  # fmt: skip
    hand(frame, keys)
    return frame


def hand(
    frame: Frame, keys: Sequence[bytes | None], values: Sequence[Any] | None = None, topic: str = "source"
) -> Work:
    """Put records in the frame's hand."""
    count = len(keys)
    frame.rows.task_times.extend([1_000 + at for at in range(count)])
    frame.work = Work(
        range(count), values or [None] * count, keys, [b"raw"] * count, [1_500 + at for at in range(count)],
        [7 + at for at in range(count)], None, 0, [(topic, 3)],
    )  # fmt: skip
    frame.row = 0
    return frame.work


@contextmanager
def inside(frame: Frame) -> Iterator[Frame]:
    """Run code as the agent of a frame."""
    token = CURRENT.set(frame)
    try:
        yield frame
    finally:
        CURRENT.reset(token)
