"""The binary header `hw` on derived records: where a record came from; and `hw.t`, `hw.m`, which the engine reads.

`hw` is unsigned varints: agent, source topic (numbers of the generation's name table), partition, offset, emit index;
then, on repartition topics, the channel's emit sequence, how far the sender's task time was ahead (behind: that much
below 2^66), where watermarks are kept the record's own one, and the sender's partition where it isn't the source's; and
on outputs the number of the app that wrote it. `hw.t` is the event time (ms, decimal text) where the log's timestamp
can't hold it. `hw.m` marks a record that is not data (JSON): how far a sender of a repartition topic is, or the
END-OF-TIME of a source partition.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from headwater.core.batch import Headers

ORIGIN = "hw"
TIME = "hw.t"
MARK = "hw.m"
DEAD = "hw.dead"
TARGET = "hw.to"
"""On a redriven dead letter: "app.generation/agent" that it is for; other apps read the same topic."""


_BEHIND = 1 << 66
"""Added to a negative number: no two times of 64 bits are as far apart as half of it."""


class Origin(NamedTuple):
    """Where a derived record came from; `sequence` counts the records of one channel from 0, `ahead_ms` is how far the
    sender's task time was ahead of the record's timestamp, `behind` how far the record's own watermark was behind that
    (`behind_of`), `sender` the sending task's partition where that is not the source's (all only on repartition topics). `app` is the writing app's number (only on outputs).
    """

    agent: int
    topic: int
    partition: int
    offset: int
    emit: int
    sequence: int = 0
    ahead_ms: int = 0
    behind: int | None = None
    sender: int | None = None
    app: int | None = None


_NEVER, _END = -(1 << 63), (1 << 63) - 1


def behind_of(watermark: int, time: int) -> int:
    """Return a watermark as a number from 0: how far it is behind an effective time, with 0 and 1 for never and the end."""
    if watermark == _NEVER:
        return 0
    return 1 if watermark == _END else max(0, time - watermark) + 2


def watermark_of(behind: int | None, time: int) -> int:
    """Return the watermark that `behind_of` gave as a number."""
    if behind is None or behind == 0:
        return _NEVER
    return _END if behind == 1 else time - (behind - 2)


def is_end_of_time(headers: Headers) -> bool:
    """Tell whether a record without key and value is the END-OF-TIME mark of a source partition."""
    return len(headers) == 1 and headers[0] == (MARK, END_OF_TIME_MARK)


END_OF_TIME_MARK = b'{"end_of_time":true}'


def app_number(app: str) -> int:
    """Return the number by which an app's outputs are known in whatever topic they stand."""
    return zlib.crc32(app.encode())


def encode_varints(*numbers: int) -> bytes:
    """Return unsigned LEB128 varints, one after the other."""
    out = bytearray()
    for number in numbers:
        n = number
        while n > 0x7F:
            out.append((n & 0x7F) | 0x80)
            n >>= 7
        out.append(n)
    return bytes(out)


def decode_varints(data: bytes) -> list[int]:
    """Return the varints of `data`; raises ValueError where the last one is cut off."""
    numbers, n, shift = [], 0, 0
    for byte in data:
        n |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
        else:
            numbers.append(n)
            n = shift = 0
    if shift:
        raise ValueError("a varint is cut off")
    return numbers


def varint(number: int) -> bytes:
    """Return one unsigned varint."""
    if number < 128:
        return _SMALL[number] if number >= 0 else encode_varints(number)
    if number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    if number < 1 << 21:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))
    if number < 1 << 28:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14 & 127 | 128, number >> 21))
    return encode_varints(number)


_SMALL = [bytes((number,)) for number in range(128)]


def encode_origin(origin: Origin) -> bytes:
    """Return the header value for an origin."""
    head = encode_varints(*origin[:5])
    if origin.app is not None:
        return head + encode_varints(origin.app)
    return head + encode_channel(origin.sequence, origin.ahead_ms, origin.behind, origin.sender)


def encode_channel(sequence: int, ahead_ms: int, behind: int | None, sender: int | None) -> bytes:
    """Return what follows an origin in a header of an internal topic."""
    data = varint(sequence) + varint(ahead_ms if ahead_ms >= 0 else _BEHIND + ahead_ms)
    if sender is not None:
        return data + varint(behind or 0) + varint(sender)
    return data if behind is None else data + varint(behind)


def decode_origin(data: bytes) -> Origin:
    """Return the origin in a header value; raises ValueError where it isn't one."""
    numbers = decode_varints(data)
    if not 5 <= len(numbers) <= 9:
        raise ValueError(f"an origin has 5 to 9 varints, found {len(numbers)}")
    if len(numbers) == 6:
        agent, topic, partition, offset, emit, app = numbers
        return Origin(agent, topic, partition, offset, emit, app=app)
    if len(numbers) > 6 and numbers[6] > _BEHIND >> 1:
        numbers[6] -= _BEHIND
    return Origin(*numbers)
