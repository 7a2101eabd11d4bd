"""Queries and questions over Kafka, four partitions and three workers: SQL's answers, live and replayed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.equivalence.commanded import Question, show
from tests.equivalence.test_flights_questions import HOURS, INPUTS, QUESTIONS, partitions
from tests.equivalence.test_flights_questions import TABLES as FLIGHT_TABLES
from tests.equivalence.test_nexmark import QUERIES, TABLES
from tests.equivalence.test_questions_commanded import BY_ARRIVAL, nexmark_file, year_answers
from tests.truth import flights, nexmark

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]


def on_kafka(question: Question, folder: Path, log: str, *, quick: bool) -> None:
    """Show a question over Kafka; where lateness hangs on the partition, one worker has the only one."""
    show(question, folder, processes=min(3, question.partitions), log=log, quick=quick)


# A minute each: one of them stands in the gate.
@pytest.mark.parametrize(
    "query", [pytest.param("q4", marks=pytest.mark.slow), "q5", pytest.param("q9", marks=pytest.mark.slow)]
)
def test_a_query_over_kafka(query: str, alone: Callable[[], str], tmp_path: Path) -> None:
    question = Question(
        f"apps.nexmark.{query}",
        {"nexmark": nexmark_file(tmp_path, in_order=False)},
        {query: nexmark.answers()[query]},
        TABLES,
    )
    on_kafka(question, tmp_path / "place", alone(), quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["f03", "f09_dropping", "f12"])
def test_a_question_over_kafka(name: str, alone: Callable[[], str], tmp_path: Path) -> None:
    answers = flights.month_answers(HOURS)
    inputs = {}
    for topic in INPUTS[name]:
        inputs[topic] = tmp_path / f"{topic}.parquet"
        pq.write_table(flights.first_hours(flights.month()[topic], HOURS), inputs[topic])
    question = Question(
        f"apps.flights.{name}",
        inputs,
        {answer: answers[answer] for answer in QUESTIONS[name]},
        FLIGHT_TABLES,
        partitions(name),
        {"f12_open_flights_asof": flights.INSTANTS},
    )
    on_kafka(question, tmp_path / "place", alone(), quick=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("query", QUERIES)
def test_each_query_over_kafka_and_many_events(
    query: str, nexmark_events: Path, alone: Callable[[], str], tmp_path: Path
) -> None:
    question = Question(
        f"apps.nexmark.{query}",
        {"nexmark": nexmark_file(tmp_path, events=nexmark_events, in_order=False)},
        {query: nexmark.answers(nexmark_events)[query]},
        TABLES,
        by_arrival=query in BY_ARRIVAL,
    )
    on_kafka(question, tmp_path / "place", alone(), quick=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", QUESTIONS)
def test_each_question_over_kafka_and_the_year(
    name: str, flights_year: Path, alone: Callable[[], str], tmp_path: Path
) -> None:
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
    on_kafka(question, tmp_path / "place", alone(), quick=False)
