"""Times as people write them: ISO 8601, ms since the epoch, `earliest`, `now`; and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from headwater.core.errors import MisuseError, TimeRangeError

EARLIEST = -(1 << 63)
"""The time before all records, whatever their timestamps."""

DURATION_MAX_MS = 1 << 53
"""No duration is longer: 285,000 years."""

_NUMBER = re.compile(r"-?[0-9]{1,20}\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(text: str, *, now_ms: int) -> int:
    """Return ms since the epoch (UTC) for ISO 8601 text (no zone: UTC), ms, `earliest` or `now`.

    Raises TimeRangeError for anything else.
    """
    word = text.strip()
    if word == "earliest":
        return EARLIEST
    if word == "now":
        return now_ms
    if _NUMBER.match(word):
        return _within_bounds(int(word), text)
    try:
        # Digits alone are ms or nothing: fromisoformat would take a long row of them as date, letter and fraction.
        moment = datetime.fromisoformat("" if word.isdigit() else word)
    except ValueError:
        raise TimeRangeError(
            f"can't read the time {text!r}; write ISO 8601 such as 2013-10-01T04:00:00Z (no zone means UTC), "
            "milliseconds since the epoch, 'earliest' or 'now'"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def duration_ms(value: Any, what: str, *, zero: bool = True) -> int:
    """Return a duration, a timedelta or a number of seconds, in whole ms. Raises MisuseError that begins with `what`.

    `zero`: whether no time at all is a duration here.
    """
    if isinstance(value, timedelta):
        exact = value / timedelta(milliseconds=1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        exact = value * 1000
    else:
        raise MisuseError(f"{what} is a timedelta or a number of seconds; found {value!r}")
    if not 0 <= exact <= DURATION_MAX_MS or (not zero and exact == 0):
        raise MisuseError(f"{what} is {'not negative' if zero else 'longer than nothing'}; found {value!r}")
    if exact != round(exact):
        raise MisuseError(f"{what} is a whole number of milliseconds; found {value!r}")
    return round(exact)


def format_time(time_ms: int) -> str:
    """Return ISO 8601 text with milliseconds and Z; a time outside years 1 to 9999 as its number of ms."""
    if time_ms == EARLIEST:
        return "earliest"
    try:
        moment = _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return str(time_ms)
    # Not strftime: its %Y has four digits on some platforms only.
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _within_bounds(time_ms: int, text: str) -> int:
    if not -(1 << 63) <= time_ms < 1 << 63:
        raise TimeRangeError(f"the time {text!r} lies outside 64 bits of milliseconds since the epoch")
    return time_ms
