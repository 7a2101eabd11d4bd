"""The canonical text of a truth's rows, so that an answer can be compared with it by text or by hash.

One JSON object a row: names sorted, no spaces, floats as short as they read back the same, times as ISO 8601 with
milliseconds and Z. Rows are sorted by the bytes of their first column, which is the table's key.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SLICE_AS_OF = "2013-01-15T12:00:00"
YEAR_AS_OF = "2013-06-30T12:00:00"
YEAR_START = "2013-10-01T04:00:00"
"""Midnight in New York, in UTC."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What SQL says about a bounded input: its columns, the key first, and its rows as canonical text."""

    columns: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The hash of all lines."""
        return hash_lines(self.lines)


def canonical_lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return rows as canonical text, with just these columns; the first is the key."""
    key = columns[0]
    picked = sorted(
        ({name: canonical_value(row[name]) for name in columns} for row in rows),
        key=lambda row: str(row[key]).encode(),
    )
    dump = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return tuple(dump.encode(row) for row in picked)


def canonical_value(value: Any) -> Any:
    """Return a time as text; anything else as it is."""
    if not isinstance(value, datetime):
        return value
    utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def hash_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of the lines, each ended by a newline."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def slice_truth(name: str) -> Truth:
    """Return what SQL says of the month that ships with the flights app."""
    path = FOLDER / "slice" / f"{name}.jsonl"
    packed = path.with_suffix(".jsonl.gz")
    text = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    # Only newlines end a line here: a text may hold other separators.
    return Truth(tuple(year_truths()[name]["columns"]), tuple(text.decode().removesuffix("\n").split("\n")))


def year_truths() -> dict[str, dict[str, Any]]:
    """Return, by name, `columns` (the key first), `rows` (their number) and `sha256` over the full year."""
    truths: dict[str, dict[str, Any]] = json.loads((FOLDER / "year.json").read_text(encoding="utf-8"))
    return truths
