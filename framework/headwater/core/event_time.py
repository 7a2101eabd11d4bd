"""Event time out of a value: ms, a datetime or ISO 8601 text, in a field or by a function."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_LIMIT = 1 << 63


class EventTime:
    """Takes the event time from decoded values of one topic."""

    __slots__ = ("_field", "_function", "is_field", "selector")

    def __init__(self, selector: str | Callable[[Any], Any]) -> None:
        """Take a field's name (of a dict or an object), or a function of the value."""
        self.selector = selector
        self.is_field = isinstance(selector, str)
        self._field = selector if isinstance(selector, str) else None
        self._function = None if isinstance(selector, str) else selector

    def of(self, value: Any) -> int | None:
        """Return ms since the epoch, or None where the value has no event time: then the record's timestamp holds."""
        if value is None:
            return None
        if self._function is not None:
            try:
                found = self._function(value)
            except (LookupError, AttributeError, TypeError, ValueError):
                return None
        elif isinstance(value, dict):
            found = value.get(self._field)
        else:
            found = getattr(value, self._field, None)  # type: ignore[arg-type]
        return to_ms(found)


def to_ms(found: Any) -> int | None:
    """Return ms since the epoch (UTC) for ms, a datetime or ISO 8601 text (no zone: UTC); None for anything else."""
    if type(found) is int:
        return found if -_LIMIT <= found < _LIMIT else None
    if isinstance(found, str):
        try:
            # Digits alone are no ISO text here: fromisoformat would take a long row of them as date and time.
            found = datetime.fromisoformat("" if found.isdigit() else found)
        except ValueError:
            return None
    if isinstance(found, datetime):
        moment = found.replace(tzinfo=UTC) if found.tzinfo is None else found
        return (moment - _EPOCH) // _MS
    if type(found) is float and abs(found) < 1e18:
        return round(found)
    return None
