"""What commands print: one JSON object a line for programs, tables for people, everything else on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headwater.core.times import format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_encode = msgspec.json.Encoder().encode
_BUFFER_BYTES = 1 << 18


def json_line(fields: Any) -> bytes:
    """Return one JSON object with its line feed."""
    return _encode(fields) + b"\n"


class Output:
    """Where one command prints."""

    def __init__(self, *, json: bool) -> None:
        """Print JSON lines, or for people."""
        self.json = json
        self._stream = click.get_binary_stream("stdout")
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, line: bytes) -> None:
        """Print bytes that end in a line feed, many at a time."""
        self._waiting.append(line)
        self._size += len(line)
        if self._size >= _BUFFER_BYTES:
            self.flush()

    def text(self, line: str) -> None:
        """Print one line."""
        self.write(line.encode(errors="backslashreplace") + b"\n")

    def flush(self) -> None:
        """Let go of what waits."""
        if self._waiting:
            data, self._waiting, self._size = b"".join(self._waiting), [], 0
            self._stream.write(data)
        self._stream.flush()

    def rows(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
        """Print rows: all fields as JSON, or `columns` as a table; `empty` is said where there are none."""
        if self.json:
            for row in rows:
                self.write(json_line(row))
            return
        shown = [[cell(row.get(column)) for column in columns] for row in rows]
        if not shown:
            self.note(empty)
            return
        titles = [column.replace("_", " ") for column in columns]
        widths = [max(map(len, texts)) for texts in zip(titles, *shown, strict=True)]
        right = [
            all(text.lstrip("-").replace(".", "", 1).isdigit() for text in texts if text != "-")
            for texts in zip(*shown, strict=True)
        ]
        self.text(_aligned(titles, widths, right))
        for texts in shown:
            self.text(_aligned(texts, widths, right))

    def result(self, fields: Mapping[str, Any], sentence: str) -> None:
        """Print what was done: an object, or a sentence."""
        if self.json:
            self.write(json_line(fields))
        else:
            self.text(sentence)

    def note(self, sentence: str) -> None:
        """Say something that is not the result, on stderr."""
        self.flush()
        click.echo(sentence, err=True)


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value)) or "-"
    if isinstance(value, dict):
        return _encode(value).decode()
    return str(value)


def time_text(time_ms: int | None) -> str | None:
    """Return a time as ISO 8601 text, None for none."""
    return None if time_ms is None else format_time(time_ms)


def is_terminal() -> bool:
    """Whether somebody looks at stderr as it is written."""
    return sys.stderr.isatty()


def _aligned(texts: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = (
        text.rjust(width) if is_right else text.ljust(width)
        for text, width, is_right in zip(texts, widths, right, strict=True)
    )
    return "  ".join(cells).rstrip()
