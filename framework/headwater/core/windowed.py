"""Rows of windowed tables: their keys, which sort by key bytes and then by start, and the mark that a window is closed."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.core.values import Codec

_BOUNDS = Struct(">QQ")
_OFFSET = 1 << 63
_END = b"\x00\x00"
_OPEN = b'{"final":false,"value":'
_CLOSED = b'{"final":true,"value":'


def window_prefix(key: bytes) -> bytes:
    """Return what the keys of a key's windows begin with, and no other's do.

    A zero byte inside becomes 00 FF and 00 00 ends the key, so that keys sort as their bytes do.
    """
    return (key.replace(b"\x00", b"\x00\xff") if b"\x00" in key else key) + _END


def window_key(key: bytes, start: int, end: int) -> bytes:
    """Return the row key of a window [start, end) of a key; bounds in ms, 64 bits signed."""
    return window_prefix(key) + _BOUNDS.pack(start + _OFFSET, end + _OFFSET)


def split_window_key(data: bytes) -> tuple[bytes, int, int]:
    """Return (key, start, end) of a row key."""
    start, end = _BOUNDS.unpack(data[-16:])
    return data[:-18].replace(b"\x00\xff", b"\x00"), start - _OFFSET, end - _OFFSET


class WindowedCodec:
    """The codec of a windowed table: pairs (final, value) as `{"final":…,"value":…}`, the value as another codec has it."""

    __slots__ = ("immutable", "inner", "type_name")

    def __init__(self, inner: Codec) -> None:
        """Take the values' own codec, which writes JSON."""
        self.inner = inner
        self.immutable = inner.immutable
        self.type_name = f"windowed {inner.type_name}"

    def encode(self, value: Any) -> bytes:
        """Return a pair's bytes. Raises ValueRefusedError."""
        final, inner = value
        return (_CLOSED if final else _OPEN) + self.inner.encode(inner) + b"}"

    def decode(self, data: bytes) -> tuple[bool, Any]:
        """Return the pair of these bytes. Raises ValueRefusedError."""
        final = data.startswith(_CLOSED)
        return final, self.inner.decode(data[len(_CLOSED if final else _OPEN) : -1])
