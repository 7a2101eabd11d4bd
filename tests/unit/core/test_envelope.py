"""The record envelope of cli.md, there and back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.envelope import Envelope, parse_envelope, to_envelope
from headwater.core.errors import EnvelopeError

NOW = 1_700_000_000_000
TIMES = st.sampled_from([0, -1, 1, 2**63 - 1, -(2**63), NOW]) | st.integers(-(2**63), 2**63 - 1)
BYTES = st.none() | st.just(b"") | st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
HEADERS = st.lists(st.tuples(st.text(max_size=6) | st.sampled_from(["k", "k2"]), BYTES), max_size=5).map(
    tuple
)
JSON_TEXT = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())


def there_and_back(
    key: bytes | None, value: bytes | None, timestamp: int, headers: Any, *, raw: bool
) -> tuple[dict[str, Any], Envelope]:
    envelope = to_envelope("clicks", 3, 17, timestamp, key, value, headers, raw=raw)
    line = json.dumps(envelope, ensure_ascii=False)
    assert parse_envelope(line, number=1, now_ms=NOW) == parse_envelope(line.encode(), number=1, now_ms=NOW)
    return envelope, parse_envelope(line, number=1, now_ms=NOW)


@given(BYTES, BYTES | JSON_TEXT, TIMES, HEADERS)
def test_a_raw_envelope_comes_back_byte_for_byte(key: Any, value: Any, timestamp: int, headers: Any) -> None:
    headers = tuple(pair for pair in headers if pair[0] not in ("hw", "hw.t"))
    _, back = there_and_back(key, value, timestamp, headers, raw=True)
    assert back == Envelope(key, value, timestamp, 3, headers)


@given(BYTES, BYTES | JSON_TEXT, TIMES, HEADERS)
def test_a_readable_envelope_comes_back_with_the_same_json(
    key: Any, value: Any, timestamp: int, headers: Any
) -> None:
    envelope, back = there_and_back(key, value, timestamp, headers, raw=False)
    kept = tuple(pair for pair in headers if pair[0] not in ("hw", "hw.t"))
    assert (back.key, back.timestamp, back.partition, back.headers) == (key, timestamp, 3, kept)
    if value is None or "value_b64" in envelope:
        assert back.value == value
    else:
        assert back.value is not None
        assert json.loads(back.value) == json.loads(value)


@settings(max_examples=5)
@given(st.binary(min_size=3, max_size=9), st.booleans())
def test_a_megabyte_and_a_thousand_headers_come_back(seed: bytes, raw: bool) -> None:
    value = (seed * (1 << 20))[: 1 << 20]
    headers = tuple((f"h{at % 600}", None if at % 7 == 0 else seed) for at in range(1000))
    _, back = there_and_back(seed, value, -1, headers, raw=raw)
    if raw:
        assert back == Envelope(seed, value, -1, 3, headers)
    assert (back.key, back.headers) == (seed, headers)


def test_text_and_json_are_shown_as_they_are() -> None:
    envelope = to_envelope("clicks", 0, 17, NOW, b"u1", b'{"amount": 3.5}', (("k", b"v"),))
    assert envelope == {
        "topic": "clicks", "partition": 0, "offset": 17, "timestamp": NOW, "key": "u1", "value": {"amount": 3.5},
        "headers": {"k": "v"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [b"", b"null", b" null ", b"\xff", b"hello", b'{"v":NaN}', b"1e400", b'"\\ud800"', b"\xef\xbb\xbf1", b"[" * 100_000 + b"]" * 100_000],
)  # fmt: skip
def test_values_that_json_cannot_show_are_base64_and_the_text_null_is_no_tombstone(value: bytes) -> None:
    envelope, back = there_and_back(b"k", value, 0, (), raw=False)
    assert base64.b64decode(envelope["value_b64"]) == value
    assert "value" not in envelope
    assert back.value == value


def test_a_null_value_is_a_tombstone_and_a_null_key_is_not_an_empty_one() -> None:
    assert to_envelope("t", 0, 0, 0, None, None, ())["value"] is None
    assert to_envelope("t", 0, 0, 0, None, None, (), raw=True)["key"] is None
    assert to_envelope("t", 0, 0, 0, b"", None, ())["key"] == ""
    assert to_envelope("t", 0, 0, 0, b"\xff", None, ())["key_b64"] == "/w=="


@pytest.mark.parametrize(
    "headers",
    [(("k", b"1"), ("k", b"2")), (("k", None),), (("k", b"\xff"),), (("a", b"1"), ("k", None), ("a", b"1"))],
)
def test_headers_that_an_object_cannot_hold_are_a_list(headers: Any) -> None:
    envelope, back = there_and_back(b"k", b"1", 0, headers, raw=False)
    assert "headers" not in envelope
    assert [name for name, _ in envelope["headers_b64"]] == [name for name, _ in headers]
    assert back.headers == headers


def test_the_engines_headers_are_shown_only_raw_and_never_sent() -> None:
    headers = (("hw", b"\1\2"), ("k", b"v"), ("hw.t", b"5"), ("hw.dead", b"{}"))
    assert to_envelope("t", 0, 0, 0, None, None, headers)["headers"] == {"k": "v", "hw.dead": "{}"}
    raw = to_envelope("t", 0, 0, 0, None, None, headers, raw=True)
    assert [name for name, _ in raw["headers_b64"]] == ["hw", "k", "hw.t", "hw.dead"]
    assert parse_envelope(json.dumps(raw), number=1, now_ms=0).headers == (("k", b"v"), ("hw.dead", b"{}"))
    line = '{"value":1,"headers":{"hw":"x","k":"v"}}'
    assert parse_envelope(line, number=1, now_ms=0).headers == (("k", b"v"),)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"value":{"b":1, "a":2}}', Envelope(None, b'{"b":1,"a":2}', NOW, None, ())),
        ('{"key":900,"value":null}', Envelope(b"900", None, NOW, None, ())),
        ('{"key":["a",1],"value":"x"}', Envelope(b'["a",1]', b'"x"', NOW, None, ())),
        ('{"key":"","value":18446744073709551617}', Envelope(b"", b"18446744073709551617", NOW, None, ())),
        ('{"key":null,"key_b64":"/w==","value":1}', Envelope(b"\xff", b"1", NOW, None, ())),
        ('{"value":1,"timestamp":5,"ts":0}', Envelope(None, b"1", 0, None, ())),
        ('{"value":1,"timestamp":5,"ts":null}', Envelope(None, b"1", 5, None, ())),
        ('{"value":1,"timestamp":"2013-06-30T12:00:00Z"}', Envelope(None, b"1", 1372593600000, None, ())),
        ('{"value":1,"timestamp":"2013-06-30 12:00"}', Envelope(None, b"1", 1372593600000, None, ())),
        (
            '{"value":1,"topic":7,"offset":"x","other":[],"partition":null}',
            Envelope(None, b"1", NOW, None, ()),
        ),
        ('{"value":1,"partition":2,"headers":null}', Envelope(None, b"1", NOW, 2, ())),
        ('\ufeff{"value_b64":""}', Envelope(None, b"", NOW, None, ())),
    ],
)
def test_what_may_be_left_out_or_written_otherwise_is_taken(line: str, expected: Envelope) -> None:
    assert parse_envelope(line, number=1, now_ms=NOW) == expected


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("", "no record envelope"),
        ("{", "truncated"),
        ("[1]", "expected a JSON object, found an array"),
        ("null", "expected a JSON object, found null"),
        ('{"key":"k"}', 'neither "value" nor "value_b64"'),
        ('{"value":NaN}', "malformed"),
        ('{"value":1}{"value":2}', "trailing"),
        ('{"value":1,"value_b64":"MQ=="}', "both"),
        ('{"key":"a","key_b64":"MQ==","value":1}', "both"),
        ('{"value_b64":"?"}', "not base64"),
        ('{"value_b64":7}', "must be base64 text"),
        ('{"value":1,"timestamp":1.5}', "whole ms"),
        ('{"value":1,"timestamp":true}', "whole ms"),
        ('{"value":1,"ts":"2013-06-30"}', "whole ms"),
        ('{"value":1,"timestamp":"yesterday"}', "can't read the time"),
        ('{"value":1,"timestamp":"now"}', "a time of its own"),
        ('{"value":1,"timestamp":9223372036854775808}', "64 bits"),
        ('{"value":1,"partition":-1}', "number from 0"),
        ('{"value":1,"partition":true}', "number from 0"),
        ('{"value":1,"headers":[]}', "must be an object"),
        ('{"value":1,"headers":{"a":1}}', "header 'a' must be text"),
        ('{"value":1,"headers_b64":{}}', "must be a list"),
        ('{"value":1,"headers_b64":[["a"]]}', "must be a list"),
        ('{"value":1,"headers_b64":[["a","?"]]}', "not base64"),
        ('{"value":1,"headers":{"a":"1"},"headers_b64":[["a","MQ=="]]}', "both"),
        (b'{"value":"\xff"}', "utf-8"),
    ],
)
def test_a_malformed_envelope_is_refused_with_its_line_number(line: Any, what: str) -> None:
    with pytest.raises(
        EnvelopeError, match=r"^line 42 is no record envelope: (?s:.*)write one object a line"
    ) as caught:
        parse_envelope(line, number=42, now_ms=NOW)
    assert what in str(caught.value)
    assert caught.value.exit_code == 2
