"""Windows: which spans of event time a record belongs to. Pure: no state, no clock. Bounds are half-open ms since 1970 UTC.

`FixedWindow`s know their spans ahead (tumbling, hopping, calendar); the others are made by the records (sliding,
session, count) and are only described here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headwater.core.errors import MisuseError
from headwater.core.place import users_line
from headwater.core.times import duration_ms

if TYPE_CHECKING:
    from collections.abc import Callable

Span = tuple[int, int]

UNITS = ("hour", "day", "week", "month", "year")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_HOUR_MS = 3_600_000
_FIRST, _LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
_MEMO_MAX = 4096


class Window:
    """What all windows are to the declarations."""

    __slots__ = ()


class FixedWindow(Window, ABC):
    """A window whose spans hang on the time alone."""

    __slots__ = ()

    @abstractmethod
    def spans(self, time_ms: int) -> tuple[Span, ...]:
        """Return the spans that hold a time, the earliest first."""

    def alike(self, time_ms: int, spans: tuple[Span, ...]) -> Span:
        """Return times around one for which `spans` are the same."""
        return spans[0]


@dataclass(frozen=True, slots=True, init=False)
class Tumbling(FixedWindow):
    """Spans of one size, one after the other, aligned to 1970 UTC plus the offset."""

    size_ms: int
    offset_ms: int

    def __init__(self, size: float | timedelta, offset: float | timedelta = 0) -> None:
        """Take durations (seconds or timedelta). Raises MisuseError for a size of nothing."""
        object.__setattr__(
            self, "size_ms", duration_ms(size, f"Tumbling(size=…) at {users_line()}", zero=False)
        )
        object.__setattr__(
            self, "offset_ms", duration_ms(offset, f"Tumbling(offset=…) at {users_line()}") % self.size_ms
        )

    def spans(self, time_ms: int) -> tuple[Span, ...]:
        """Return the one span that holds a time."""
        start = time_ms - (time_ms - self.offset_ms) % self.size_ms
        return ((start, start + self.size_ms),)


@dataclass(frozen=True, slots=True, init=False)
class Hopping(FixedWindow):
    """Spans of one size that begin each step: they overlap where the step is shorter."""

    size_ms: int
    step_ms: int
    offset_ms: int

    def __init__(
        self, size: float | timedelta, step: float | timedelta, offset: float | timedelta = 0
    ) -> None:
        """Take durations (seconds or timedelta). Raises MisuseError for a size or step of nothing, or a step beyond the size."""
        object.__setattr__(
            self, "size_ms", duration_ms(size, f"Hopping(size=…) at {users_line()}", zero=False)
        )
        object.__setattr__(
            self, "step_ms", duration_ms(step, f"Hopping(step=…) at {users_line()}", zero=False)
        )
        object.__setattr__(
            self, "offset_ms", duration_ms(offset, f"Hopping(offset=…) at {users_line()}") % self.step_ms
        )
        if self.step_ms > self.size_ms:
            raise MisuseError(
                f"Hopping(…) at {users_line()}: a step of {self.step_ms} ms is longer than the size of {self.size_ms} ms, so records between two "
                "windows would belong to none; filter them out and take Tumbling(step)"
            )

    def spans(self, time_ms: int) -> tuple[Span, ...]:
        """Return the spans that hold a time."""
        last = time_ms - (time_ms - self.offset_ms) % self.step_ms
        size, step = self.size_ms, self.step_ms
        first = last - (size - 1 - (time_ms - last)) // step * step
        return tuple([(start, start + size) for start in range(first, last + 1, step)])

    def alike(self, time_ms: int, spans: tuple[Span, ...]) -> Span:
        """Return the step that a time is in, where windows begin and end with steps only."""
        if self.size_ms % self.step_ms:
            return time_ms, time_ms + 1
        return spans[-1][0], spans[-1][0] + self.step_ms


@dataclass(frozen=True, slots=True, init=False)
class Calendar(FixedWindow):
    """Hours, days, weeks (from Monday), months or years as a time zone's clocks and calendars have them."""

    unit: str
    zone: ZoneInfo
    _memo: dict[int, Span] = field(compare=False, repr=False, hash=False)

    def __init__(self, unit: str, tz: str | ZoneInfo = "UTC") -> None:
        """Take a unit's name and an IANA zone. Raises MisuseError where there is no such."""
        if unit not in UNITS:
            raise MisuseError(
                f"Calendar(unit) at {users_line()} is one of {', '.join(UNITS)}; found {unit!r}"
            )
        try:
            zone = tz if isinstance(tz, ZoneInfo) else ZoneInfo(tz)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
            raise MisuseError(
                f"Calendar(tz=…) at {users_line()} is the name of an IANA zone such as 'America/New_York'; found {tz!r} ({error})"
            ) from None
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "zone", zone)
        object.__setattr__(self, "_memo", {})

    def spans(self, time_ms: int) -> tuple[Span, ...]:
        """Return the one span that holds a time."""
        # No zone changes its clocks within a quarter of an hour of another change, and none but on a quarter.
        quarter = time_ms // 900_000
        span = self._memo.get(quarter)
        if span is None:
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            span = self._span(time_ms)
            if span[0] <= quarter * 900_000 and span[1] >= (quarter + 1) * 900_000:
                self._memo[quarter] = span
        return (span,)

    def _span(self, time_ms: int) -> Span:
        if self.unit == "hour":
            return self._hour(time_ms)
        local = _at(time_ms + self._offset_ms(time_ms))
        day = local.date()
        if self.unit == "day":
            first, following = day, _days_later(day, 1)
        elif self.unit == "week":
            first = _days_later(day, -day.weekday())
            following = _days_later(first, 7)
        elif self.unit == "month":
            first = day.replace(day=1)
            following = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        else:
            first, following = date(day.year, 1, 1), date(day.year + 1, 1, 1)
        return self._begin_of(first), self._begin_of(following)

    def _begin_of(self, day: date) -> int:
        """Return the first instant of a local day: the change itself, where midnight was left out."""
        return (datetime(day.year, day.month, day.day, tzinfo=self.zone) - _EPOCH) // _MS

    def _hour(self, time_ms: int) -> Span:
        offset = self._offset_ms(time_ms)
        start = (time_ms + offset) // _HOUR_MS * _HOUR_MS - offset
        end = start + _HOUR_MS
        # Where clocks change by less than an hour, the change cuts an hour in two.
        if self._offset_ms(start) != offset:
            start = _bisected(start, time_ms, lambda at: self._offset_ms(at) == offset)
        if self._offset_ms(end - 1) != offset:
            end = _bisected(time_ms, end - 1, lambda at: self._offset_ms(at) != offset)
        return start, end

    def _offset_ms(self, time_ms: int) -> int:
        moment = datetime.fromtimestamp(_clamped(time_ms).timestamp(), self.zone)
        offset = moment.utcoffset()
        assert offset is not None
        return offset // _MS


@dataclass(frozen=True, slots=True, init=False)
class Sliding(Window):
    """For each record's time t the records of its key in [t - size, t]: the span [t - size, t + 1)."""

    size_ms: int

    def __init__(self, size: float | timedelta) -> None:
        """Take a duration. Raises MisuseError for nothing."""
        object.__setattr__(
            self, "size_ms", duration_ms(size, f"Sliding(size=…) at {users_line()}", zero=False)
        )


@dataclass(frozen=True, slots=True, init=False)
class Session(Window):
    """Records of a key that are not further apart than the gap: the span [first, last + gap)."""

    gap_ms: int
    merge_at_gap: bool

    def __init__(self, gap: float | timedelta, *, merge_at_gap: bool = True) -> None:
        """Take a duration; `merge_at_gap`: whether records exactly the gap apart belong together."""
        object.__setattr__(self, "gap_ms", duration_ms(gap, f"Session(gap=…) at {users_line()}", zero=False))
        object.__setattr__(self, "merge_at_gap", bool(merge_at_gap))

    @property
    def reach_ms(self) -> int:
        """The greatest distance of two records that belong together."""
        return self.gap_ms if self.merge_at_gap else self.gap_ms - 1


@dataclass(frozen=True, slots=True, init=False)
class Count(Window):
    """Each n records of a key in merged order: bounds are record numbers, not times."""

    size: int

    def __init__(self, size: int) -> None:
        """Take a whole number from 1."""
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise MisuseError(f"Count(size) at {users_line()} is a whole number from 1; found {size!r}")
        object.__setattr__(self, "size", size)


def _clamped(time_ms: int) -> datetime:
    """Return a moment of the years that zones know: beyond them, their first or last rule holds."""
    try:
        moment = _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return _LAST if time_ms > 0 else _FIRST
    return min(max(moment, _FIRST), _LAST)


def _at(local_ms: int) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=local_ms)
    except OverflowError:
        raise ValueError(
            f"the time {local_ms} ms lies outside the years that a calendar has (1 to 9999); filter such records out"
        ) from None


def _days_later(day: date, days: int) -> date:
    return day + timedelta(days=days)


def _bisected(low: int, high: int, is_beyond: Callable[[int], bool]) -> int:
    """Return the first time in (low, high] for which the function says yes; it does for `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        if is_beyond(middle):
            high = middle
        else:
            low = middle
    return high
