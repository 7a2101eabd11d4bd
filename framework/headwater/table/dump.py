"""Canonical dump: a table's rows as JSON lines that are equal byte for byte where the tables are equal.

Rows are sorted by key bytes, names inside objects by their text; no spaces; floats in their shortest round-trip
spelling. A number that no float holds exactly (a big integer, more digits than 17, 1e400) keeps its spelling: a dump
never changes a value. Bytes that are no JSON (for a key: no UTF-8) are shown as base64 under `key_b64`, `value_b64`.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import re
from base64 import b64encode
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from headwater.core.windowed import split_window_key, split_windowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

# What a float may not hold, or may be spelled otherwise: 16 digits, an exponent, -0. Found in a text it costs only time.
_RISKY_NUMBER = re.compile(rb"[0-9.]{16}|[0-9][eE]|-0(?!\.)")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def canonical_rows(
    items: Iterable[tuple[bytes, bytes]] | Mapping[bytes, bytes],
    *,
    raw: bool = False,
    key_json: Callable[[bytes], Any] | None = None,
    windowed: bool = False,
) -> Iterator[str]:
    """Yield a line (without its end) for each row.

    Items come in the order of key bytes, as stores give them, or as a mapping in any order. `raw`: base64 of the
    stored bytes always. `key_json` turns key bytes into what the key is shown as, where a table declares a key type;
    a ValueError of it shows the key as base64. `windowed`: each row also has `start`, `end` (ms) and `final`.
    """
    for row in _rows(items, raw, key_json, windowed):
        yield row.decode()


def dump_sha256(
    items: Iterable[tuple[bytes, bytes]] | Mapping[bytes, bytes],
    *,
    raw: bool = False,
    key_json: Callable[[bytes], Any] | None = None,
    windowed: bool = False,
) -> str:
    """Return the SHA-256 (hexadecimal) of the dump's lines, each with its line feed: what "byte for byte" means."""
    digest = hashlib.sha256()
    for row in _rows(items, raw, key_json, windowed):
        digest.update(row + b"\n")
    return digest.hexdigest()


def merge_partitions(parts: Iterable[Iterable[tuple[bytes, bytes]]]) -> Iterator[tuple[bytes, bytes]]:
    """Return the rows of several partitions, each in key order, as one in key order; no row is held back."""
    return heapq.merge(*parts)


def canonical_json(data: bytes) -> bytes | None:
    """Return JSON bytes in canonical spelling, or None where they aren't JSON (in UTF-8)."""
    try:
        value = _decode(data)
        if _encode(value) == data:  # nothing got lost in between, so nothing will
            return _encode_sorted(value) if b"{" in data else data
        if not _RISKY_NUMBER.search(data):
            return _encode_sorted(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass  # what msgspec can't read may still be JSON (1e400, a lone surrogate); the exact reader decides
    return _exact_json(data)


def _rows(
    items: Iterable[tuple[bytes, bytes]] | Mapping[bytes, bytes],
    raw: bool,
    key_json: Callable[[bytes], Any] | None,
    windowed: bool,
) -> Iterator[bytes]:
    ordered = sorted(items.items()) if hasattr(items, "items") else items
    last: bytes | None = None
    for key, value in ordered:
        if last is not None and key < last:
            raise ValueError(f"rows to dump are not in key order: {key!r} after {last!r}")
        last = key
        window = b""
        if windowed:
            key, start, end = split_window_key(key)
            final, value = split_windowed(value)
            window = b'"start":%d,"end":%d,"final":%s,' % (start, end, b"true" if final else b"false")
        shown = None if raw else canonical_json(value)
        if shown is None:
            body = b'"value_b64":"' + b64encode(value) + b'"}'
        else:
            body = b'"value":' + shown + b"}"
        yield b"{" + _key_field(key, raw, key_json) + b"," + window + body


def _key_field(key: bytes, raw: bool, key_json: Callable[[bytes], Any] | None) -> bytes:
    if not raw:
        try:
            return b'"key":' + _encode_sorted(key.decode() if key_json is None else key_json(key))
        except ValueError:  # UnicodeDecodeError is one
            return b'"key_b64":"' + b64encode(key) + b'"'
    return b'"key_b64":"' + b64encode(key) + b'"'


class _Spelled(str):
    """A number as it was written."""

    __slots__ = ()


def _exact_json(data: bytes) -> bytes | None:
    """Do as `canonical_json`, slowly, without ever turning a number into one that is not it."""
    try:
        value = json.loads(data.decode(), parse_float=_float, parse_int=_Spelled, parse_constant=_refuse)
        return _spell(value).encode(
            errors="backslashreplace"
        )  # a lone surrogate becomes its JSON escape again
    except (ValueError, RecursionError):
        return None


def _float(text: str) -> _Spelled:
    number = float(text)
    if math.isinf(number):
        return _Spelled(text)
    short = _encode(number).decode()
    try:
        return _Spelled(short if Decimal(short) == Decimal(text) else text)
    except InvalidOperation:  # an exponent past what Decimal holds
        return _Spelled(text)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _spell(value: Any) -> str:
    if isinstance(value, _Spelled):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{_text(name)}:{_spell(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_spell, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    return "null" if value is None else "true" if value else "false"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
