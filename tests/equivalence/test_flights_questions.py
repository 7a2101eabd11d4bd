"""The questions about flights are SQL's answers: live, replayed in both orders, handed over, and as of instants."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.equivalence.asked import Asked, difference
from tests.equivalence.world import Given
from tests.truth import flights

pytestmark = pytest.mark.timeout(600)

HOURS = 3 * 24
"""Of the month so much is worked here."""
QUESTIONS = {
    "f01": ("f01_daily_local", "f01_daily_utc"),
    "f03": ("f03_weather_1h", "f03_weather_asof"),
    "f04": ("f04_plane_sessions",),
    "f08": ("f08_by_manufacturer", "f08_missing_planes"),
    "f09": ("f09_hourly_final",),
    "f09_dropping": ("f09_hourly_dropping", "f09_late_records"),
    "f11": ("f11_dedupe", "f11_dedupe_1h"),
    "f12": ("f12_open_flights_asof",),
}
INPUTS = {
    "f01": ("departures",),
    "f03": ("flights_sched", "weather"),
    "f04": ("departures",),
    "f08": ("planes", "departures"),
    "f09": ("departures_late",),
    "f09_dropping": ("departures_late",),
    "f11": ("flights_dup",),
    "f12": ("flight_status",),
}
TABLES = frozenset({"f08_by_manufacturer", "f08_missing_planes", "f09_hourly_dropping", "f12_open_flights"})


def partitions(question: str) -> int:
    """Return how many partitions the inputs have: what is late is asked of one."""
    return 1 if question == "f09_dropping" else 4


@cache
def given(topic: str) -> list[Given]:
    """Return a stream's records as `send` would append them."""
    records = []
    table = flights.first_hours(flights.month()[topic], HOURS)
    for row in table.to_pylist():
        key, time = row.pop("key"), row.pop("timestamp")
        del row["offset"]
        deleted = row.pop("deleted", False)
        value = None if deleted else json.dumps(row, default=_iso, separators=(",", ":")).encode()
        records.append(Given(key.encode(), value, round(time.replace(tzinfo=UTC).timestamp() * 1000)))
    return records


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds") + "Z"


def check(asked: Asked, question: str, generation: str = "live") -> None:
    """Raise where an answer isn't SQL's."""
    answers = flights.month_answers(HOURS)
    for name in QUESTIONS[question]:
        if name != "f12_open_flights_asof":
            asked.check(name, answers[name], generation)
            continue
        rows = [
            {"as_of": instant, **row}
            for instant in flights.INSTANTS
            for row in asked.rows("f12_open_flights", generation, instant)
        ]
        found = answers[name].lines_of(rows)
        assert found == answers[name].lines, difference(name, found, answers[name].lines)


@pytest.mark.parametrize("question", QUESTIONS)
def test_live_and_replayed_in_both_orders(question: str, tmp_path: Path) -> None:
    asked = Asked(f"apps.flights.{question}", tmp_path / "live", TABLES)
    for topic in INPUTS[question]:
        asked.send(topic, given(topic), partitions(question))
    asked.world.work(drain=True)
    check(asked, question)
    asked.world.archive()
    for topic in INPUTS[question]:
        asked.world.trim(topic)
    for order in ("time", "live"):
        asked.world.replay(f"by_{order}", order=order)
        check(asked, question, f"by_{order}")
    asked.close()


def handed_over() -> list[Any]:
    """Return each question with each share of the records that is only in the archive; what takes long is left out of the gate."""
    slow = {("f12", 0.001), ("f12", 0.999)}
    return [
        pytest.param(question, share, marks=[pytest.mark.slow] if (question, share) in slow else [])
        for question in QUESTIONS
        for share in (0.001, 0.37, 0.999)
    ]


@pytest.mark.parametrize(("question", "share"), handed_over())
def test_handed_over_at_three_offsets(question: str, share: float, tmp_path: Path) -> None:
    """What comes before the cut is only in the archive, what comes after it only in the log."""
    asked = Asked(f"apps.flights.{question}", tmp_path / "cut", TABLES)
    cuts = {topic: max(1, int(share * len(given(topic)))) for topic in INPUTS[question]}
    for topic, cut in cuts.items():
        asked.send(topic, given(topic)[:cut], partitions(question))
    asked.world.archive()
    for topic, cut in cuts.items():
        asked.world.trim(topic)
        asked.send(topic, given(topic)[cut:], partitions(question))
    asked.world.work(drain=True)
    check(asked, question)
    asked.close()
