"""Compare two generations: tables by key, outputs by partition as multisets of (key, value, timestamp) and by order per key.

Headers, offsets and log timestamps are left out. JSON values are compared in canonical spelling, so that two spellings
of one value are equal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from headwater.core.header import ORIGIN
from headwater.core.names import parse_internal
from headwater.engine.generation import output_topic
from headwater.engine.history import (
    fold_table,
    is_windowed,
    known_topics,
    partitions_of,
    read_topic,
    tables_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.archive.archive import Archive
    from headwater.engine.generation import Generation
    from headwater.log.interface import Log

Row: TypeAlias = "tuple[bytes, ...]"
"""The values that the partitions of a table hold for one key: one, unless the table is local."""

Output: TypeAlias = "tuple[bytes | None, int]"


@dataclass(frozen=True, slots=True)
class RowDifference:
    """One key whose row differs; None where that side has no row."""

    key: bytes
    a: bytes | None
    b: bytes | None


@dataclass(frozen=True, slots=True)
class TableDifference:
    """What differs in one table; `rows` holds the first differing keys, in key order.

    `windowed`: keys and values are those of windows (`core.windowed`).
    """

    table: str
    rows_a: int
    rows_b: int
    only_a: int
    only_b: int
    changed: int
    rows: tuple[RowDifference, ...]
    windowed: bool = False

    @property
    def differs(self) -> bool:
        """Whether any row does."""
        return bool(self.only_a or self.only_b or self.changed)


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """What differs in one partition of an output: records that one side lacks, and keys whose order differs."""

    topic: str
    partition: int
    records_a: int
    records_b: int
    only_a: int
    only_b: int
    order: int
    keys: tuple[bytes | None, ...]

    @property
    def differs(self) -> bool:
        """Whether any record or order does."""
        return bool(self.only_a or self.only_b or self.order)


@dataclass(frozen=True, slots=True)
class Diff:
    """Two generations compared."""

    a: str
    b: str
    tables: list[TableDifference] = field(default_factory=list)
    outputs: list[OutputDifference] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return any(t.differs for t in self.tables) or any(o.differs for o in self.outputs)


def compare(
    log: Log, archive: Archive | None, app_id: str, a: Generation, b: Generation, *, keys_max: int = 20
) -> Diff:
    """Return how two generations of an app differ, naming at most `keys_max` keys a table and output partition."""
    diff = Diff(a.name, b.name)
    tables = [set(tables_of(log, archive, app_id, generation)) for generation in (a, b)]
    for table in sorted(tables[0] | tables[1]):
        sides = [
            fold_table(log, archive, app_id, generation, table) if table in named else {}
            for generation, named in zip((a, b), tables, strict=True)
        ]
        windowed = is_windowed(a, table) or is_windowed(b, table)
        diff.tables.append(compare_tables(table, sides[0], sides[1], keys_max=keys_max, windowed=windowed))
    topics = {name for generation in (a, b) for name in _outputs(log, archive, app_id, generation.name)}
    for topic in sorted(topics):
        places = [output_topic(app_id, generation.name, topic) for generation in (a, b)]
        partitions = {p for place in places for p in partitions_of(log, archive, place)}
        for partition in sorted(partitions):
            found = [_records(log, archive, place, partition, derived=place == topic) for place in places]
            diff.outputs.append(compare_outputs(topic, partition, found[0], found[1], keys_max=keys_max))
    return diff


def compare_tables(
    table: str,
    a: Mapping[int, Mapping[bytes, bytes]],
    b: Mapping[int, Mapping[bytes, bytes]],
    *,
    keys_max: int = 20,
    windowed: bool = False,
) -> TableDifference:
    """Return how two sides' rows (by partition) differ; sides of different layouts are compared by key alone."""
    rows_a, rows_b = _by_key(a), _by_key(b)
    if len(a) != len(b):
        rows_a = {key: tuple(sorted(row)) for key, row in rows_a.items()}
        rows_b = {key: tuple(sorted(row)) for key, row in rows_b.items()}
    only_a, only_b = rows_a.keys() - rows_b.keys(), rows_b.keys() - rows_a.keys()
    changed = {
        key
        for key in rows_a.keys() & rows_b.keys()
        if rows_a[key] != rows_b[key]
        and _canonical(rows_a[key], windowed) != _canonical(rows_b[key], windowed)
    }
    named = sorted(only_a | only_b | changed)[:keys_max]
    rows = tuple(
        RowDifference(
            key, rows_a[key][0] if key in rows_a else None, rows_b[key][0] if key in rows_b else None
        )
        for key in named
    )
    counts = (len(rows_a), len(rows_b), len(only_a), len(only_b), len(changed))
    return TableDifference(table, *counts, rows, windowed)


def compare_outputs(
    topic: str,
    partition: int,
    a: Mapping[bytes | None, list[Output]],
    b: Mapping[bytes | None, list[Output]],
    *,
    keys_max: int = 20,
) -> OutputDifference:
    """Return how two sides' records (by key, in offset order) differ."""
    only_a = only_b = order = 0
    keys: list[bytes | None] = []
    for key in a.keys() | b.keys():
        left, right = a.get(key, []), b.get(key, [])
        if left == right:
            continue
        left, right = [_canonical_output(x) for x in left], [_canonical_output(x) for x in right]
        if left == right:
            continue
        keys.append(key)
        count_a, count_b = Counter(left), Counter(right)
        missing, added = (count_a - count_b).total(), (count_b - count_a).total()
        only_a += missing
        only_b += added
        order += not missing and not added
    named = sorted(keys, key=lambda key: (key is not None, key or b""))[:keys_max]
    return OutputDifference(
        topic,
        partition,
        sum(map(len, a.values())),
        sum(map(len, b.values())),
        only_a,
        only_b,
        order,
        tuple(named),
    )


def _by_key(parts: Mapping[int, Mapping[bytes, bytes]]) -> dict[bytes, Row]:
    rows: dict[bytes, Row] = {}
    for _, part in sorted(parts.items()):
        for key, value in part.items():
            rows[key] = (*rows[key], value) if key in rows else (value,)
    return rows


def _canonical(row: Row, windowed: bool = False) -> Row:
    from headwater.table.dump import canonical_json

    if windowed:
        return tuple(value[:1] + (canonical_json(value[1:]) or value[1:]) for value in row)
    return tuple(canonical_json(value) or value for value in row)


def _canonical_output(output: Output) -> Output:
    value, timestamp = output
    return (value, timestamp) if value is None else (_canonical((value,))[0], timestamp)


def _outputs(log: Log, archive: Archive | None, app_id: str, generation: str) -> set[str]:
    """Return the user topics that a generation has a shadow of.

    The first generation has none; what it wrote is compared with the other's shadows.
    """
    parts = (parse_internal(topic, app_id) for topic in known_topics(log, archive))
    return {p.name for p in parts if p is not None and p.generation == generation and p.kind == "out"}


def _records(
    log: Log, archive: Archive | None, topic: str, partition: int, *, derived: bool
) -> dict[bytes | None, list[Output]]:
    """Return records by key in offset order; `derived`: only those an agent wrote, as others may write there too."""
    found: dict[bytes | None, list[Output]] = {}
    if partition not in partitions_of(log, archive, topic):
        return found
    for batch in read_topic(log, archive, topic, partition):
        columns = zip(batch.keys, batch.values, batch.timestamps, strict=True)
        for index, (key, value, timestamp) in enumerate(columns):
            if derived and all(name != ORIGIN for name, _ in batch.headers_at(index)):
                continue
            found.setdefault(key, []).append((value, timestamp))
    return found
