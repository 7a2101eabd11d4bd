"""An app that answers questions, through the command line only: worked live, replayed in odd ways, compared with SQL's.

Protocol of `show`: send, work with `--drain` in some processes, compare with SQL; archive and trim; replay with other
numbers of processes, batch sizes and hash seeds, and compare tables and outputs byte for byte with `diff`. Of outputs it compares
the order by key too; where results hang on what arrives first, only a replay in live order is as live was, and those in time
order are alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.equivalence.asked import difference
from tests.equivalence.place import Place
from tests.equivalence.small_batches import GROUP_RECORDS
from tests.truth.nexmark import Answer

ODD_APP = "tests.equivalence.odd_batches:app"
MODULE = "HEADWATER_TEST_MODULE"
"""Names the module to that app."""


@dataclass(frozen=True, slots=True)
class Question:
    """A module, what it reads, what it answers. `instants`: the table of that name is asked as of them.

    `by_arrival`: which record of several comes first hangs on the order of arrival.
    """

    module: str
    inputs: Mapping[str, Path]
    answers: Mapping[str, Answer]
    tables: frozenset[str] = frozenset()
    partitions: int = 4
    instants: Mapping[str, Sequence[str]] | None = None
    by_arrival: bool = False


def show(
    question: Question,
    folder: Path,
    *,
    processes: int,
    log: str = "",
    quick: bool = False,
    note: Callable[[str], None] = print,
) -> None:
    """Show that a question's answer is SQL's however it is worked. Raises AssertionError where it isn't.

    `log`: its URL, where it is not a folder of the place. `quick`: one replay, not three.
    """
    place = Place(folder, question.module, note=note, log=log)
    folder.mkdir(parents=True)
    for topic, file in question.inputs.items():
        place.send(topic, file, question.partitions)
    place.run("worker", "--until-idle", "--drain", "--processes", str(processes))
    compare(place, question)
    place.archive()
    for topic in question.inputs:
        place.trim(topic)
    odd = {MODULE: question.module, GROUP_RECORDS: "777"}
    three = place.with_app(ODD_APP, PYTHONHASHSEED="1", **odd)
    as_live = place.with_app(ODD_APP, PYTHONHASHSEED="4242", **{**odd, GROUP_RECORDS: "3301"})
    replays: list[tuple[str, Place, tuple[str, ...]]] = [
        ("three", three, ("--order", "time", "--processes", "3")),
        ("one", place, ("--order", "time", "--processes", "1")),
        ("as_live", as_live, ("--order", "live", "--processes", "2")),
    ]
    for name, through, options in replays[:1] if quick else replays:
        through.replay(name, "--from", "earliest", *options)
        if not question.by_arrival or "live" in options:
            place.run("diff", "live", name)
        compare(place, question, name)
    if not quick:
        place.run("diff", "three", "one")


def compare(place: Place, question: Question, generation: str = "live") -> None:
    """Raise where an answer isn't SQL's, row for row."""
    for name, answer in question.answers.items():
        rows: list[dict[str, Any]] = []
        instants = (question.instants or {}).get(name)
        if instants is not None:
            table = name.removesuffix("_asof")
            for instant in instants:
                found = place.rows(table, "--as-of", instant, "--generation", generation)
                rows += [{"as_of": instant, **row} for row in found]
        elif name in question.tables:
            rows = place.rows(name, "--generation", generation)
        else:
            text = place.run("read", name, "--json", "--generation", generation)
            rows = [json.loads(line)["value"] for line in text.splitlines()]
        lines = answer.lines_of(rows)
        assert lines == answer.lines, difference(f"{generation}: {name}", lines, answer.lines)
