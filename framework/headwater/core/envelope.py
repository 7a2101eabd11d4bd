"""The record envelope: one JSON object a record, as `read` prints it and `send` takes it.

Bytes that JSON can't show (keys that are not UTF-8, values that are not JSON, the value `null`, which would pass for a
tombstone) are in `key_b64`, `value_b64` and `headers_b64`. Only those, or an envelope made with `raw`, come back byte
for byte; a JSON value comes back as the same JSON, compactly.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.core.errors import EnvelopeError, KeyRefusedError, TimeRangeError, ValueRefusedError
from headwater.core.header import ORIGIN, TIME
from headwater.core.keys import encode_key
from headwater.core.times import parse_time
from headwater.core.values import codec_for

if TYPE_CHECKING:
    from headwater.core.batch import Headers

_ENGINE_HEADERS = (ORIGIN, TIME)
_TIME_MIN, _TIME_MAX = -(1 << 63), (1 << 63) - 1
_JSON = codec_for(None)
_load_json = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Envelope:
    """A record to be sent; without `partition` the key decides."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    partition: int | None
    headers: Headers


def to_envelope(
    topic: str,
    partition: int,
    offset: int,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    *,
    raw: bool = False,
) -> dict[str, Any]:
    """Return a record's envelope; `raw`: all bytes as base64, the engine's own headers too."""
    envelope: dict[str, Any] = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp": timestamp,
    }
    if key is None:
        envelope["key"] = None
    elif raw:
        envelope["key_b64"] = _encode_base64(key)
    else:
        try:
            envelope["key"] = key.decode()
        except UnicodeDecodeError:
            envelope["key_b64"] = _encode_base64(key)
    if value is None:
        envelope["value"] = None
    else:
        shown = None if raw else _json_of(value)
        if shown is None:
            envelope["value_b64"] = _encode_base64(value)
        else:
            envelope["value"] = shown
    _show_headers(envelope, headers, raw=raw)
    return envelope


def parse_envelope(line: str | bytes, *, number: int, now_ms: int) -> Envelope:
    """Return the record of one line; `number` is the line's, from 1, for messages; `now_ms` the time of sending.

    Raises EnvelopeError.
    """
    try:
        return _parse(line, now_ms)
    except (ValueError, KeyRefusedError, TimeRangeError, ValueRefusedError) as error:
        raise EnvelopeError(
            f"line {number} is no record envelope: {error}; "
            'write one object a line, such as {"key": "u1", "value": {"amount": 3.5}, "timestamp": 1700000000000}'
        ) from error


def _parse(line: str | bytes, now_ms: int) -> Envelope:
    fields = _JSON.decode(line.encode() if isinstance(line, str) else bytes(line))
    if type(fields) is not dict:
        raise ValueError(f"expected a JSON object, found {_kind(fields)}")
    key = (
        _decode_base64(fields, "key") if fields.get("key_b64") is not None else encode_key(fields.get("key"))
    )
    if fields.get("value_b64") is not None:
        value: bytes | None = _decode_base64(fields, "value")
    elif "value" not in fields:
        raise ValueError('it has neither "value" nor "value_b64" (a tombstone is written "value": null)')
    else:
        shown = fields["value"]
        value = None if shown is None else _JSON.encode(shown)
    return Envelope(key, value, _read_time(fields, now_ms), _read_partition(fields), _read_headers(fields))


def _read_time(fields: dict[str, Any], now_ms: int) -> int:
    name = "timestamp" if fields.get("ts") is None else "ts"
    found = fields.get(name)
    if found is None:
        return now_ms
    if type(found) is str and name == "timestamp":
        if found.strip() in ("earliest", "now"):
            raise ValueError(f'"timestamp" is {found!r}; a record needs a time of its own, as ms or ISO 8601')
        found = parse_time(found, now_ms=now_ms)
    if type(found) is not int:
        raise ValueError(f'"{name}" must be whole ms since the epoch, found {_kind(found)} {found!r:.60}')
    if not _TIME_MIN <= found <= _TIME_MAX:
        raise ValueError(f'"{name}" {found} lies outside 64 bits')
    return found


def _read_partition(fields: dict[str, Any]) -> int | None:
    found = fields.get("partition")
    if found is not None and (type(found) is not int or not 0 <= found < 1 << 31):
        raise ValueError(f'"partition" must be a number from 0, found {found!r:.60}')
    return found


def _read_headers(fields: dict[str, Any]) -> Headers:
    packed = fields.get("headers_b64")
    if packed is not None:
        if fields.get("headers"):
            raise ValueError('it has both "headers" and "headers_b64"; leave one out')
        return _unpack_headers(packed)
    headers = fields.get("headers")
    if not headers and headers in (None, {}):
        return ()
    if type(headers) is not dict:
        raise ValueError(f'"headers" must be an object of texts, found {_kind(headers)}')
    for name, text in headers.items():
        if text is not None and type(text) is not str:
            raise ValueError(
                f'header {name!r} must be text, found {_kind(text)}; write it in quotes, or use "headers_b64"'
            )
    return tuple(
        (name, None if text is None else text.encode())
        for name, text in headers.items()
        if name not in _ENGINE_HEADERS
    )


def _unpack_headers(packed: Any) -> Headers:
    if type(packed) is not list:
        raise ValueError(f'"headers_b64" must be a list of [name, base64 or null], found {_kind(packed)}')
    headers = []
    for pair in packed:
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str:
            raise ValueError(
                f'"headers_b64" must be a list of [name, base64 or null], found {pair!r:.60} in it'
            )
        name, text = pair
        value = None if text is None else _from_base64(text, f"the header {name!r}")
        if name not in _ENGINE_HEADERS:
            headers.append((name, value))
    return tuple(headers)


def _show_headers(envelope: dict[str, Any], headers: Headers, *, raw: bool) -> None:
    shown = headers if raw else tuple(pair for pair in headers if pair[0] not in _ENGINE_HEADERS)
    texts: dict[str, str] = {}
    if not (raw and shown):
        try:
            # None has no decode(): like bytes that are not UTF-8, it needs the list.
            texts = {name: value.decode() for name, value in shown if value is not None}
        except UnicodeDecodeError:
            texts = {}
        if len(texts) == len(shown):
            envelope["headers"] = texts
            return
    envelope["headers_b64"] = [
        [name, None if value is None else _encode_base64(value)] for name, value in shown
    ]


def _json_of(value: bytes) -> Any:
    """Return the JSON value of these bytes, or None where they are not JSON, or are its null."""
    try:
        return _load_json(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def _decode_base64(fields: dict[str, Any], name: str) -> bytes:
    if fields.get(name) is not None:
        raise ValueError(f'it has both "{name}" and "{name}_b64"; leave one out')
    return _from_base64(fields[f"{name}_b64"], f'"{name}_b64"')


def _from_base64(text: Any, what: str) -> bytes:
    if type(text) is not str:
        raise ValueError(f"{what} must be base64 text, found {_kind(text)}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{what} is not base64 ({error})") from error


def _encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "text",
        int: "a number",
        float: "a number",
        bool: "a boolean",
    }
    return names.get(type(value), "null")
