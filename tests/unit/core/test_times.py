"""Times as people write them, and back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.errors import MisuseError, TimeRangeError
from headwater.core.times import EARLIEST, duration_ms, format_time, parse_time

YEAR_1, YEAR_10000 = -62_135_596_800_000, 253_402_300_800_000


@given(st.integers(YEAR_1, YEAR_10000 - 1))
def test_times_of_years_1_to_9999_come_back(time_ms: int) -> None:
    text = format_time(time_ms)
    assert len(text) == len("2013-10-01T04:00:00.000Z")
    assert parse_time(text, now_ms=0) == time_ms


@given(st.integers(-(2**63), YEAR_1 - 1) | st.integers(YEAR_10000, 2**63 - 1))
def test_times_outside_the_calendar_are_numbers_and_come_back(time_ms: int) -> None:
    assert parse_time(format_time(time_ms), now_ms=0) == time_ms


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (-5, "1969-12-31T23:59:59.995Z"),
        (YEAR_1, "0001-01-01T00:00:00.000Z"),
        (YEAR_1 - 1, "-62135596800001"),
        (YEAR_10000 - 1, "9999-12-31T23:59:59.999Z"),
        (YEAR_10000, "253402300800000"),
        (2**63 - 1, "9223372036854775807"),
        (EARLIEST, "earliest"),
    ],
)
def test_the_edges_are_written_so(time_ms: int, text: str) -> None:
    assert format_time(time_ms) == text
    assert parse_time(text, now_ms=7) == time_ms


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("now", 7),
        (" 42 ", 42),
        ("-42", -42),
        ("2013-10-01", 1380585600000),
        ("2013-10-01T04:00:00", 1380600000000),
        ("2013-10-01T04:00:00Z", 1380600000000),
        ("2013-10-01T06:00:00+02:00", 1380600000000),
        ("1969-12-31T23:59:59.9999Z", -1),
    ],
)
def test_the_forms_of_the_command_line_are_read(text: str, time_ms: int) -> None:
    assert parse_time(text, now_ms=7) == time_ms


@pytest.mark.parametrize(
    "text", ["", "yesterday", "--5", "-", "²", "٣", "1.5", "2013-13-01", "9" * 19, "1" * 5000]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(TimeRangeError):
        parse_time(text, now_ms=0)


@pytest.mark.parametrize(
    ("value", "ms"), [(0, 0), (1.5, 1500), (60, 60_000), (timedelta(hours=1), 3_600_000), (0.001, 1)]
)
def test_a_duration_is_seconds_or_a_timedelta(value: object, ms: int) -> None:
    assert duration_ms(value, "gap") == ms


@pytest.mark.parametrize(
    "value", [-1, timedelta(-1), "1", None, True, float("nan"), 1e20, timedelta(microseconds=1)]
)
def test_what_is_no_duration_is_refused_by_name(value: object) -> None:
    with pytest.raises(MisuseError, match=r"^gap is "):
        duration_ms(value, "gap")


def test_a_size_is_longer_than_nothing() -> None:
    with pytest.raises(MisuseError, match="longer than nothing"):
        duration_ms(0, "size", zero=False)
