"""Results: what aggregating operators share: which table they fill, how they show a key, whether anybody reads what closes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.core.errors import KeyRefusedError
from headwater.core.keys import decode_key

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWN_MAX = 100_000
"""So many keys are remembered as they are shown."""

_COMPOSITE = (b"[", b"{")
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Results:
    """How an aggregation was declared.

    `table`: the name of the table it fills, or None. `is_read`: tells at start whether anybody reads its results as a
    stream. `expires_ms`: how long closed windows stay in the table, by watermark; None: for ever. `shown` remembers keys as
    they are shown.
    """

    name: str
    table: str | None
    key_type: Any
    is_read: Callable[[], bool]
    grace_ms: int = 0
    expires_ms: int | None = None
    shown: dict[bytes, Any] = field(default_factory=dict, compare=False, repr=False)

    def key(self, data: bytes) -> Any:
        """Return a group's key as its type; without one as text, a composite one as a list or dict."""
        shown = self.shown.get(data)
        if shown is None:
            shown = self._read(data)
            # A list or dict could be changed by who is given it.
            if type(shown) in (str, int):
                if len(self.shown) >= SHOWN_MAX:
                    self.shown.clear()
                self.shown[data] = shown
        return shown

    def _read(self, data: bytes) -> Any:
        if self.key_type is None and data[:1] in _COMPOSITE:
            try:
                return _decode(data)
            except msgspec.DecodeError:
                pass  # text that begins like JSON
        key = decode_key(data, self.key_type)
        return list(key) if type(key) is tuple else key

    def group(self, key: bytes | None) -> bytes:
        """Return the key of a record's group. Raises KeyRefusedError for a record without."""
        if key is None:
            raise KeyRefusedError(
                f"{self.name!r} groups records by their key, and this one has none; say what else by, as in "
                ".group_by('field'), or filter such records out"
            )
        return key
