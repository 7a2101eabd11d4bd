"""Keys and values of windowed rows as bytes. Keys sort by the key's bytes, then start, then end; values carry `final`."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from headwater.core.errors import ValueRefusedError

if TYPE_CHECKING:
    from headwater.core.values import Codec

_TIMES = struct.Struct(">QQ")
_BIAS = 1 << 63
_END = b"\0\0"


class WindowKey(NamedTuple):
    """A row's key and its window, ms since 1970 UTC, half-open."""

    key: bytes
    start: int
    end: int


def window_key(key: bytes, start: int, end: int) -> bytes:
    """Return a windowed row's key bytes. Raises ValueRefusedError for times beyond 64 bits of milliseconds."""
    try:
        return window_prefix(key) + _TIMES.pack(start + _BIAS, end + _BIAS)
    except struct.error:
        raise ValueRefusedError(
            f"a window from {start} to {end} ms lies outside 64 bits of milliseconds; filter records of such times out"
        ) from None


def window_prefix(key: bytes) -> bytes:
    """Return what the bytes of all windows of a key begin with, and no others'."""
    # Zeros inside are escaped, so that a key sorts before those it begins.
    return (key.replace(b"\0", b"\0\1") if b"\0" in key else key) + _END


def split_window_key(data: bytes) -> WindowKey:
    """Return what `window_key` was given. Raises ValueError where it made no such bytes."""
    head, tail = data[: -_TIMES.size], data[-_TIMES.size :]
    if len(tail) < _TIMES.size or not head.endswith(_END):
        raise ValueError(f"{data!r} is not the key of a windowed row")
    start, end = _TIMES.unpack(tail)
    return WindowKey(head[:-2].replace(b"\0\1", b"\0"), start - _BIAS, end - _BIAS)


def split_prefix(data: bytes) -> bytes:
    """Return the key that `window_prefix` was given."""
    return data[:-2].replace(b"\0\1", b"\0")


class Windowed(NamedTuple):
    """A windowed row's value. `final`: the window is closed, and the row won't change any more."""

    value: Any
    final: bool


_FLAGS = (b"\0", b"\1")


class WindowedCodec:
    """Turns `Windowed` values into bytes and back: a byte for `final`, then the value as another codec has it."""

    __slots__ = ("codec", "immutable")

    def __init__(self, codec: Codec) -> None:
        """Take the values' codec."""
        self.codec = codec
        self.immutable = codec.immutable

    def encode(self, value: Any) -> bytes:
        """Return a value's bytes; any pair of value and flag will do. Raises ValueRefusedError."""
        if not isinstance(value, tuple):
            raise ValueRefusedError(f"a windowed row's value is a pair of value and final; found {value!r}")
        return _FLAGS[value[1]] + self.codec.encode(value[0])

    def decode(self, data: bytes) -> Windowed:
        """Return the value of these bytes. Raises ValueRefusedError."""
        final, rest = split_windowed(data)
        return Windowed(self.codec.decode(rest), final)


def split_windowed(data: bytes) -> tuple[bool, bytes]:
    """Return a stored value's flag and the bytes of the value itself. Raises ValueRefusedError."""
    if data[:1] not in _FLAGS:
        raise ValueRefusedError(f"the bytes of a windowed row begin with its flag; found {data[:20]!r}")
    return data[0] == 1, data[1:]
