"""The classes of `hot` in Python: what runs where the extension is not there, and what it is measured by in tests."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.core.header import ORIGIN, behind_of, encode_channel, encode_varints, varint
from headwater.core.partitioner import partition_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence

    from headwater.core.batch import Headers
    from headwater.core.sending import Causes, Lane
    from headwater.core.tumbling import Held, Made, TumblingFold, WorkColumns

CURRENT: ContextVar[Any] = ContextVar("headwater_frame", default=None)

_frame_in_hand = CURRENT.get


class HotFrame:
    """See `hot`."""

    __slots__ = ("parts", "row")

    parts: dict[int, Any]
    row: int


class HotPart:
    """See `hot`."""

    __slots__ = ("hot", "keys", "number_kind", "rows", "values")

    hot: dict[Any, Any]
    keys: list[Any]
    values: list[Any]
    rows: list[int]
    number_kind: type | None


class HotTable:
    """See `hot`."""

    number: int

    def __getitem__(self, key: Any) -> Any:
        try:
            return _frame_in_hand().parts[self.number].hot[key]
        except (AttributeError, KeyError, TypeError):
            # Outside agents, not cached, or a key that can't be a dictionary's: the long way says which.
            return self._read(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        frame = _frame_in_hand()
        try:
            part = frame.parts[self.number]
            hot = part.hot
            # 1e300 is NUMBER_MAX, written out: a look-up less.
            if type(value) is part.number_kind and key in hot and -1e300 < value < 1e300:
                part.keys.append(key)
                part.values.append(value)
                part.rows.append(frame.row)
                hot[key] = value
                return
        except (AttributeError, KeyError, TypeError):
            # Outside agents, out of reach, or a key that can't be a dictionary's.
            pass
        self._write(key, value)

    def __delitem__(self, key: Any) -> None:
        self._delete(key)

    if TYPE_CHECKING:
        # The table's own.
        def _read(self, key: Any) -> Any: ...
        def _write(self, key: Any, value: Any) -> None: ...
        def _delete(self, key: Any) -> None: ...


class Entries:
    """See `hot`."""

    __slots__ = ("_frame", "_more", "_pairs")

    def __init__(self, frame: HotFrame, more: Callable[[], Coroutine[Any, Any, Any]], /) -> None:
        self._frame = frame
        self._more = more
        self._pairs: Iterator[tuple[int, Any]] = iter(())

    def load(self, rows: Sequence[int], values: Sequence[Any], /) -> None:
        """Take what comes next, in place of what is left."""
        self._pairs = zip(rows, values, strict=False)

    def clear(self) -> None:
        """Drop what is left."""
        self._pairs = iter(())

    def take(self) -> Any:
        """Hand out one value. Raises IndexError where nothing is left."""
        pair = next(self._pairs, None)
        if pair is None:
            raise IndexError("nothing is left to take")
        self._frame.row, value = pair
        return value

    async def __aiter__(self) -> AsyncIterator[Any]:
        frame = self._frame
        while True:
            for frame.row, value in self._pairs:
                yield value
            yield await self._more()


def last_indices(keys: list[Any], /) -> list[int]:
    """See `hot`."""
    return sorted(dict(zip(keys, range(len(keys)), strict=True)).values())


def fold_windows(
    fold: TumblingFold, held: Held, columns: WorkColumns, at: int, watermark: int, made: Made, /
) -> int:
    """See `hot`. Takes none: each record goes the operator's own way."""
    return at


@dataclass(slots=True)
class Send:
    """See `hot`."""

    row: int
    topic: str
    partition: int | None
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    watermark: int | None = None


def stage(
    sends: list[Send],
    topic: str,
    rows: list[int],
    keys: list[bytes],
    values: list[bytes | None],
    times: list[int],
    watermark: int,
    bytes_max: int,
    /,
) -> int:
    """See `hot`."""
    for at, (row, key, value, time) in enumerate(zip(rows, keys, values, times, strict=True)):
        if len(key) + len(value or b"") > bytes_max:
            return at
        sends.append(Send(row, topic, None, time, key, value, (), watermark))
    return len(rows)


def lay_out(sends: list[Send], at: int, lane: Lane, causes: Causes, counted: list[int], /) -> int:
    """See `hot`."""
    topics, partitions, offsets, timestamps, times, watermarks = causes
    last_row, emit = counted
    while at < len(sends) and sends[at].topic == lane.topic:
        send = sends[at]
        row, key, target = send.row, send.key, send.partition
        emit = emit + 1 if row == last_row else 0
        last_row = row
        if target is None:
            target = lane.otherwise if key is None else partition_of(key, lane.partitions)
        columns = lane.columns.get(target)
        if columns is None:
            columns = lane.columns[target] = lane.make(target)
        timestamp = timestamps[row] if send.timestamp is None else send.timestamp
        source = partitions if isinstance(partitions, int) else partitions[row]
        topic = topics if isinstance(topics, int) else topics[row]
        header = encode_varints(lane.agent, topic, source) + varint(offsets[row]) + varint(emit)
        if lane.is_internal:
            time, behind = times[row], None
            if watermarks:
                behind = behind_of(watermarks[row] if send.watermark is None else send.watermark, time)
            sender = None if lane.own == source else lane.own
            header += encode_channel(columns.sequence[0], time - timestamp, behind, sender)
            columns.sequence[0] += 1
        else:
            header += lane.app
        columns.timestamps.append(timestamp)
        columns.keys.append(key)
        columns.values.append(send.value)
        columns.headers.append((*send.headers, (ORIGIN, header)))
        at += 1
    counted[:] = last_row, emit
    return at
