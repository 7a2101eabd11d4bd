"""Record envelopes from a file, as columns ready to append; what a file may hold, not how it is appended.

A file is JSON lines, or Parquet with an archive segment's columns (`key`, `value` binary, `offset`, `timestamp`,
`headers`), or flat Parquet: `key`, `timestamp`, `deleted` and `offset` are taken out, the rest is the JSON value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

from headwater.core.envelope import parse_envelope
from headwater.core.errors import EnvelopeError, HeadwaterError
from headwater.core.header import ORIGIN, TIME
from headwater.core.keys import encode_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from headwater.core.batch import Headers

_LINES = 8192
_TAKEN_OUT = ("key", "timestamp", "deleted", "offset")
_ENGINE_HEADERS = (ORIGIN, TIME)


@dataclass(slots=True)
class Rows:
    """Records to send, as columns of equal length; `first` is the number of the first one's line, from 1.

    `partitions` and `headers` are None where no record names any.
    """

    first: int
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    partitions: Sequence[int | None] | None = None
    headers: Sequence[Headers] | None = None
    lines: Sequence[int] = field(default_factory=list)

    def line(self, index: int) -> int:
        """Return the number of a record's line (in Parquet: row)."""
        return self.lines[index] if self.lines else self.first + index


def read_lines(lines: Iterable[bytes], now_ms: int) -> Iterator[Rows]:
    """Yield the records of JSON lines; empty lines are passed over. Raises EnvelopeError with the line's number."""
    found: list[Any] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found.append(parse_envelope(line, number=number, now_ms=now_ms))
        numbers.append(number)
        if len(found) == _LINES:
            yield _columns(found, numbers)
            found, numbers = [], []
    if found:
        yield _columns(found, numbers)


def _columns(envelopes: list[Any], numbers: list[int]) -> Rows:
    named = any(e.partition is not None for e in envelopes)
    headed = any(e.headers for e in envelopes)
    return Rows(
        numbers[0],
        [e.timestamp for e in envelopes],
        [e.key for e in envelopes],
        [e.value for e in envelopes],
        [e.partition for e in envelopes] if named else None,
        [e.headers for e in envelopes] if headed else None,
        numbers,
    )


def read_rows(batches: Iterable[Any], now_ms: int) -> Iterator[Rows]:
    """Yield the records of Parquet batches, of either kind. Raises EnvelopeError with the row's number."""
    first = 1
    for batch in batches:
        names = set(batch.schema.names)
        if {"offset", "timestamp", "key", "value", "headers"} <= names and _is_binary(
            batch.schema.field("value").type
        ):
            rows = _of_segment(batch, first)
        else:
            rows = _flat(batch, first, now_ms)
        if rows.keys:
            yield rows
        first += batch.num_rows


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _of_segment(batch: Any, first: int) -> Rows:
    headers = [
        tuple((pair["key"], pair["value"]) for pair in record or () if pair["key"] not in _ENGINE_HEADERS)
        for record in batch.column("headers").to_pylist()
    ]
    partitions = None
    if "topic_partition" in batch.schema.names:
        partitions = batch.column("topic_partition").to_pylist()
    return Rows(
        first,
        _times(batch.column("timestamp"), first, 0),
        batch.column("key").to_pylist(),
        batch.column("value").to_pylist(),
        partitions,
        headers if any(headers) else None,
    )


def _flat(batch: Any, first: int, now_ms: int) -> Rows:
    names = batch.schema.names
    for name in names:
        if names.count(name) > 1:
            raise EnvelopeError(f"the file has several columns {name!r}; rename all but one")
    shown = [name for name in names if name not in _TAKEN_OUT]
    columns = [_json_column(name, batch.column(name), first) for name in shown]
    values = _encode_rows(shown, columns, batch.num_rows, first)
    if "deleted" in names:
        deleted = batch.column("deleted").to_pylist()
        values = [None if gone else value for gone, value in zip(deleted, values, strict=True)]
    keys: list[bytes | None] = [None] * batch.num_rows
    if "key" in names:
        keys = [_key(key, first + at) for at, key in enumerate(batch.column("key").to_pylist())]
    times: Sequence[int] = [now_ms] * batch.num_rows
    if "timestamp" in names:
        times = _times(batch.column("timestamp"), first, now_ms)
    return Rows(first, times, keys, values)


def _key(key: Any, row: int) -> bytes | None:
    if type(key) is str:
        return key.encode()
    try:
        return encode_key(key)
    except HeadwaterError as error:
        raise EnvelopeError(f"row {row}: {error}") from error


def _encode_rows(names: list[str], columns: list[Any], count: int, first: int) -> list[Any]:
    import msgspec

    encode = msgspec.json.Encoder().encode
    if not columns:
        return [b"{}"] * count
    try:
        return [encode(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise EnvelopeError(
            f"rows {first}..{first + count - 1} hold a value that JSON can't: {error}; leave the column out or cast it"
        ) from error


def _json_column(name: str, column: Any, first: int) -> Any:
    """Return a column as values that JSON has; timestamps are ISO 8601 text with milliseconds and Z."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_timestamp(kind):
        # Floored, as event times are: a cast would refuse, or round toward 1970.
        whole = pc.floor_temporal(column, unit="millisecond").cast(pa.timestamp("ms", tz="UTC"))
        return pc.strftime(whole, format="%Y-%m-%dT%H:%M:%SZ").to_pylist()
    if pa.types.is_floating(kind):
        finite = pc.fill_null(pc.is_finite(column), True)
        if not pc.all(finite).as_py() and len(column):
            row = first + finite.to_pylist().index(False)
            raise EnvelopeError(
                f"row {row}, column {name!r}: JSON has no NaN and no infinity; write null, or leave the row out"
            )
    if pa.types.is_null(kind):
        return repeat(None, len(column))
    if _is_binary(kind):
        raise EnvelopeError(
            f"column {name!r} holds bytes, which JSON can't; cast it to text, or leave it out"
        )
    return column.to_pylist()


def _times(column: Any, first: int, now_ms: int) -> list[int]:
    """Return ms since the epoch for a column of timestamps (naive: UTC), numbers (ms) or ISO 8601 text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from headwater.core.times import parse_time

    kind = column.type
    if pa.types.is_timestamp(kind):
        times = (
            pc.floor_temporal(column, unit="millisecond").cast(pa.timestamp("ms"))
            if kind.tz is None
            else None
        )
        if times is None:
            times = pc.floor_temporal(column.cast(pa.timestamp(kind.unit)), unit="millisecond").cast(
                pa.timestamp("ms")
            )
        found = times.cast(pa.int64()).to_pylist()
    elif pa.types.is_integer(kind):
        found = column.to_pylist()
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found = []
        for at, text in enumerate(column.to_pylist()):
            try:
                found.append(None if text is None else parse_time(text, now_ms=now_ms))
            except HeadwaterError as error:
                raise EnvelopeError(f"row {first + at}: {error}") from error
    else:
        raise EnvelopeError(
            f"column 'timestamp' holds {kind}; expected timestamps, whole ms, or ISO 8601 text"
        )
    return [now_ms if time is None else time for time in found] if column.null_count else found
