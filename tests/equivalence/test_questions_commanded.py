"""Queries and questions through the command line, in several processes; byte for byte the same however they are worked.

Quick: a Nexmark query over the stored events. Slow: all of them over 100,000 events, and all questions over the
full year of flights.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from tests.equivalence.commanded import Question, show
from tests.equivalence.test_flights_questions import INPUTS, QUESTIONS, partitions
from tests.equivalence.test_flights_questions import TABLES as FLIGHT_TABLES
from tests.equivalence.test_nexmark import QUERIES, TABLES
from tests.truth import flights, nexmark

BY_ARRIVAL = frozenset({"q3", "q7", "q8", "f03"})
"""A join that waits for no watermark gives pairs as they are complete; of several, `dedupe` keeps the first (with its event time).

In q7 two windows whose highest price is the same give records of one key, in f03 flights of one airport and hour do: in the
order in which they are complete.
"""


def nexmark_file(folder: Path, *, events: Path | None = None, in_order: bool) -> Path:
    """Write events as `send` takes them."""
    there = nexmark.events() if events is None else _read(events)
    path = folder / "nexmark.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for at in range(len(there)):
            group = nexmark.GROUP if events is None else 100
            number = at if in_order else at // group * group + at * nexmark.STRIDE % group
            file.write(json.dumps(nexmark.envelope(there[number])) + "\n")
    return path


def _read(events: Path) -> list[dict[str, object]]:
    with events.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("query", [pytest.param("q4", marks=pytest.mark.slow), "q5"])
def test_a_query_gives_the_same_bytes_in_any_number_of_processes(query: str, tmp_path: Path) -> None:
    question = Question(
        f"apps.nexmark.{query}",
        {"nexmark": nexmark_file(tmp_path, in_order=False)},
        {query: nexmark.answers()[query]},
        TABLES,
    )
    show(question, tmp_path / "place", processes=3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("in_order", [True, False], ids=["in_order", "out_of_order"])
@pytest.mark.parametrize("query", QUERIES)
def test_each_query_over_many_events(
    query: str, in_order: bool, nexmark_events: Path, tmp_path: Path
) -> None:
    question = Question(
        f"apps.nexmark.{query}",
        {"nexmark": nexmark_file(tmp_path, events=nexmark_events, in_order=in_order)},
        {query: nexmark.answers(nexmark_events)[query]},
        TABLES,
        by_arrival=query in BY_ARRIVAL,
    )
    show(question, tmp_path / "place", processes=1 if in_order else 3)


@cache
def year_answers(folder: Path) -> dict[str, nexmark.Answer]:
    """Return SQL's answers over the year, which take minutes."""
    return flights.year_answers(folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", QUESTIONS)
def test_each_question_over_the_year(name: str, flights_year: Path, tmp_path: Path) -> None:
    answers = year_answers(flights_year)
    question = Question(
        f"apps.flights.{name}",
        {topic: flights_year / f"{topic}.parquet" for topic in INPUTS[name]},
        {answer: answers[answer] for answer in QUESTIONS[name]},
        FLIGHT_TABLES,
        partitions(name),
        {"f12_open_flights_asof": flights.YEAR_INSTANTS},
        by_arrival=name in BY_ARRIVAL,
    )
    show(question, tmp_path / "place", processes=1 if name == "f09_dropping" else 3)
