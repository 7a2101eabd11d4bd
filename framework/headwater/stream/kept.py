"""Kept: values as operators keep them in states: bytes of their type, or plain data; what comes back is always alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headwater.core.values import codec_for, decode_foreign
from headwater.stream.aggregate import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.core.values import Codec


class Kept:
    """How the values of a stream are kept. `back(keep(value))` is the value again, as its type or as plain data."""

    __slots__ = ("_codec",)

    def __init__(self, value_type: Any = None) -> None:
        """Take the values' type; None: any JSON."""
        self._codec: Codec | None = None if value_type is None else codec_for(value_type)

    def keep(self, value: Any) -> Any:
        """Return a value as a state holds it. Raises ValueRefusedError."""
        return plain(value) if self._codec is None else self._codec.encode(value)

    def back(self, kept: Any) -> Any:
        """Return the value of what was kept."""
        return kept if self._codec is None else self._codec.decode(kept)


def reviver(value_type: Any) -> Callable[[Any], Any]:
    """Return what makes a value of a type of plain data; None: plain data is what it stays."""
    if value_type is None:
        return _as_it_is
    return lambda data: msgspec.convert(data, value_type, dec_hook=decode_foreign)


def _as_it_is(data: Any) -> Any:
    return data
