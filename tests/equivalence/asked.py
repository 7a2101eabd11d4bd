"""An app that answers one question, in this process: made anew for each run, fed, and its answer compared with SQL's.

An answer is the table or the topic of the question's name.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import headwater as hw
from headwater.core.header import MARK
from headwater.core.names import internal_topic
from headwater.core.times import parse_time
from tests.equivalence.world import Given, World
from tests.truth.nexmark import Answer


def fresh(module: str) -> hw.App:
    """Return a module's app made anew: an app object runs once, and a module holds one."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[module] = made  # where its types' annotations are looked up
    spec.loader.exec_module(made)
    app: hw.App = made.app
    return app


@dataclass(slots=True)
class Asked:
    """A module's app in a world of its own."""

    module: str
    folder: Path
    tables: frozenset[str] = frozenset()
    """The answers that are tables; the others are topics."""
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        make: Callable[[], hw.App] = lambda: fresh(self.module)  # noqa: E731
        self.world = World(make, self.folder, f"memory://asked-{self.folder.parent.name}-{self.folder.name}")

    def send(self, topic: str, records: Sequence[Given], partitions: int) -> None:
        """Append records."""
        self.world.send(topic, partitions, records)

    def rows(self, name: str, generation: str = "live", as_of: str | None = None) -> list[dict[str, Any]]:
        """Return the rows of an answer: a table's values, or a topic's."""
        if name in self.tables:
            instant = None if as_of is None else parse_time(as_of, now_ms=0)
            return [json.loads(line)["value"] for line in self.world.dump(name, generation, instant)]
        topic = name if generation == "live" else internal_topic(self.world.app_id, generation, "out", name)
        return [
            json.loads(value)
            for records in self.world.records(topic).values()
            for _, value, _, headers in records
            if value is not None and MARK not in dict(headers)
        ]

    def check(self, name: str, answer: Answer, generation: str = "live") -> None:
        """Raise where an answer isn't SQL's, row for row, and where a record went to dead letters."""
        found = answer.lines_of(self.rows(name, generation))
        assert found == answer.lines, difference(name, found, answer.lines)
        assert self.world.dead(generation) == []

    def close(self) -> None:
        """Let go of the log in memory."""
        self.world.forget()


def difference(name: str, found: Sequence[str], wanted: Sequence[str]) -> str:
    """Return what differs, in a few lines."""
    from collections import Counter

    there, asked = Counter(found), Counter(wanted)
    missing, odd = sorted((asked - there).elements()), sorted((there - asked).elements())
    shown = [f"{name}: {len(found)} rows, SQL has {len(wanted)}; {len(missing)} missing, {len(odd)} odd"]
    shown += [f"  missing {line[:300]}" for line in missing[:3]]
    shown += [f"  odd     {line[:300]}" for line in odd[:3]]
    return "\n".join(shown)
