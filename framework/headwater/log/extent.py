"""Extent: a stretch of one append that a log stores as one; and what records weigh when bytes are bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.core.errors import MisuseError, ValueRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from headwater.core.batch import Append, Headers
    from headwater.log.interface import Transaction

RECORD_BYTES = 24
"""What a record counts beside its key, value and headers, so that a million empty ones are not free."""

RECORD_BYTES_MAX = 512 << 20
"""SQLite keeps no blob of 1 GB, and a record is copied when it is encoded."""

TIME_MIN, TIME_MAX = -(1 << 63), (1 << 63) - 1

_BINARY = frozenset((bytes, type(None)))


@dataclass(frozen=True, slots=True)
class Extent:
    """Records that lie one after the other in one partition; columns as in Append, checked."""

    topic: str
    partition: int
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers] | None
    nbytes: int

    def __len__(self) -> int:
        return len(self.values)


def headers_bytes(headers: Headers) -> int:
    """Return what the headers of one record weigh (letters of names counted, not their bytes: a bound, no more)."""
    return sum(16 + len(name) + len(value or b"") for name, value in headers)


def record_sizes(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], headers: Sequence[Headers] | None
) -> list[int]:
    """Return the weight of each record."""
    sizes = [
        RECORD_BYTES + len(key or b"") + len(value or b"") for key, value in zip(keys, values, strict=True)
    ]
    if headers is None:
        return sizes
    return [size + headers_bytes(own) if own else size for size, own in zip(sizes, headers, strict=True)]


def fitting(sizes: Iterable[int], bytes_max: int) -> tuple[int, int]:
    """Return how many of the first records weigh at most `bytes_max` together (one at least), and their weight."""
    count = total = 0
    for size in sizes:
        if count and total + size > bytes_max:
            break
        count += 1
        total += size
    return count, total


def extents_of(append: Append, bytes_max: int) -> Iterator[Extent]:
    """Yield an append in stretches of at most `bytes_max` (a larger record alone), refusing what no log can hold."""
    check_append(append)
    count = len(append.values)
    headers = append.headers if append.headers is not None and any(append.headers) else None
    nbytes = append.nbytes if headers is None else bytes_max + 1
    if nbytes <= bytes_max:
        if count:
            yield Extent(
                append.topic,
                append.partition,
                append.timestamps,
                append.keys,
                append.values,
                None,
                nbytes,
            )
        return
    sizes = record_sizes(append.keys, append.values, headers)
    low = 0
    while low < count:
        fits, nbytes = fitting(sizes[low : low + _LOOK_AHEAD], bytes_max)
        high = low + fits
        if nbytes > RECORD_BYTES_MAX:
            raise ValueRefusedError(
                f"a record for {append.topic}/{append.partition} has {nbytes} bytes, the log takes {RECORD_BYTES_MAX} at "
                "most; store such a value elsewhere and send its address"
            )
        yield Extent(
            append.topic, append.partition, append.timestamps[low:high], append.keys[low:high],
            append.values[low:high], None if headers is None else headers[low:high], nbytes,
        )  # fmt: skip
        low = high


_LOOK_AHEAD = 1 << 16
"""Most records in one extent, so that cutting a long append stays linear."""


def check_append(append: Append) -> None:
    """Raise MisuseError where columns differ in length or hold what is no timestamp, key or value."""
    where, count = f"{append.topic}/{append.partition}", len(append.values)
    lengths = [len(append.timestamps), len(append.keys), count]
    if append.headers is not None:
        lengths.append(len(append.headers))
    if len(set(lengths)) > 1:
        raise MisuseError(
            f"an append to {where} has columns of lengths {lengths}; give one entry a record in each"
        )
    for what, column in (("key", append.keys), ("value", append.values)):
        if not _BINARY.issuperset(map(type, column)):
            wrong = next(type(entry).__name__ for entry in column if type(entry) not in _BINARY)
            raise MisuseError(f"an append to {where} has a {what} of type {wrong}; encode it: bytes or None")
    if count and (min(append.timestamps) < TIME_MIN or max(append.timestamps) > TIME_MAX):
        raise MisuseError(f"an append to {where} has a timestamp outside 64 bits; give ms since the epoch")


def check_transaction(transaction: Transaction) -> None:
    """Raise MisuseError where positions or tasks come without the member they are fenced by."""
    if transaction.member is None and (transaction.positions or transaction.tasks):
        raise MisuseError(
            "a transaction moves positions or names tasks without a member; join the group first"
        )
