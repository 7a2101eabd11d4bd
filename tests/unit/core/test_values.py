"""Value codecs: what goes in comes out, and what isn't strict JSON goes nowhere."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import faust
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.errors import MisuseError, ValueRefusedError
from headwater.core.record import Record
from headwater.core.values import codec_for


class Click(Record):
    user: str
    amount: float
    note: str | None = None


class FaustClick(faust.Record, include_metadata=False):
    user: str
    amount: float


@dataclasses.dataclass
class DataClick:
    user: str
    amount: float


class ModelClick(pydantic.BaseModel):
    user: str
    amount: float


class Bare(msgspec.Struct, omit_defaults=True):
    first: float | None = None
    second: float | None = None


class Lax(Record, coerce=True):
    amount: float
    count: int = 0


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CLICKS = [Click, FaustClick, DataClick, ModelClick]


@given(JSON_VALUES)
def test_any_json_value_comes_back_exactly(value: Any) -> None:
    codec = codec_for(None)
    data = codec.encode(value)
    assert codec.decode(data) == value
    assert json.loads(data) == value
    assert codec.encode_all([value, value]) == [data, data]
    assert codec.decode_all([data, None, data]) == [value, None, value]


@pytest.mark.parametrize("kind", CLICKS)
def test_each_kind_of_value_type_comes_back(kind: Any) -> None:
    codec = codec_for(kind)
    value = kind(user="u1", amount=3.5)
    data = codec.encode(value)
    assert json.loads(data) == {"user": "u1", "amount": 3.5} | ({"note": None} if kind is Click else {})
    back = codec.decode(data)
    assert type(back) is kind
    assert (back.user, back.amount) == ("u1", 3.5)
    assert [type(item) for item in codec.decode_all([data, None])] == [kind, type(None)]


@pytest.mark.parametrize("kind", CLICKS)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinities_are_refused_on_encode(kind: Any, number: float) -> None:
    fields = {"user": "u1", "amount": 0.0}
    value = (
        kind.model_construct(user="u1", amount=number)
        if kind is ModelClick
        else kind(**{**fields, "amount": number})
    )
    codec = codec_for(kind)
    with pytest.raises(ValueRefusedError, match="NaN and infinities"):
        codec.encode(value)
    with pytest.raises(ValueRefusedError, match="NaN and infinities"):
        codec.encode_all([kind(**fields), value])


@pytest.mark.parametrize(
    "value",
    [
        math.nan, [math.inf], {"a": {"b": [1, -math.inf]}}, {"a": None, "b": math.nan}, {"a": "null", "b": math.nan},
        {"null": None, "b": math.inf}, [None, math.nan], Bare(None, math.nan), Bare(math.nan), (1, {"a": math.nan}),
        [FaustClick(user="u", amount=math.nan)], {"k": Click("u", math.nan)},
    ],
)  # fmt: skip
def test_no_place_hides_a_number_that_is_not_finite(value: Any) -> None:
    with pytest.raises(ValueRefusedError, match="NaN and infinities"):
        codec_for(None).encode(value)


@given(st.lists(st.none() | st.floats() | st.sampled_from(["null", "x"]), max_size=5), st.booleans())
def test_exactly_the_non_finite_are_refused_whatever_else_is_null(values: list[Any], as_struct: bool) -> None:
    record: Any = dict(enumerate(map(str, values)))
    record = {f"f{at}": value for at, value in enumerate(values)}
    if as_struct:
        record = msgspec.defstruct("Made", list(record))(**record)
    is_finite = all(not isinstance(value, float) or math.isfinite(value) for value in values)
    try:
        codec_for(None).encode(record)
    except ValueRefusedError:
        assert not is_finite
    else:
        assert is_finite


BAD_JSON = {
    "empty": b"",
    "truncated": b'{"id":"x","v":',
    "trailing comma": b'{"id":"x","v":1,}',
    "single quotes": b"{'id':'x'}",
    "nan": b'{"id":"x","v":NaN}',
    "infinity": b'{"id":"x","v":-Infinity}',
    "two documents": b'{"id":"x","v":1}{"id":"y","v":2}',
    "bad utf-8": b'{"id":"\xff\xfe","v":1}',
    "text": b"hello",
    "control character": b'{"id":"a\x01b","v":1}',
    "overflow": b'{"id":"x","v":1e400}',
    "overflow of digits": b"9" * 400 + b".0",
    "too deep": b"[" * 100_000 + b"]" * 100_000,
    "lone high surrogate": b'{"id":"\\ud800","v":1}',
    "lone low surrogate": b'{"id":"\\udc00","v":1}',
    "surrogate in utf-8": b'"\xed\xa0\x80"',
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf1",
    "leading zero": b"01",
}


@pytest.mark.parametrize("data", BAD_JSON.values(), ids=BAD_JSON.keys())
@pytest.mark.parametrize("kind", [None, dict, FaustClick, ModelClick, Click, int])
def test_what_is_not_strict_json_is_refused(kind: Any, data: bytes) -> None:
    codec = codec_for(kind)
    with pytest.raises(ValueRefusedError, match="can't be decoded"):
        codec.decode(data)
    with pytest.raises(ValueRefusedError, match="can't be decoded"):
        codec.decode_all([None, data])


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"null", None),
        (b'\xef\xbb\xbf{"v":1}', {"v": 1}),
        (b'{"v":1,"v":2}', {"v": 2}),
        (b'{"v":18446744073709551617}', {"v": 2**64 + 1}),
        (b'{"v":-9223372036854775809}', {"v": -(2**63) - 1}),
        (b'{"v":9007199254740993}', {"v": 2**53 + 1}),
        (b'"\\ud83d\\ude00\\u0000"', "\U0001f600\0"),
        (b" [1e2, 1] ", [100.0, 1]),
    ],
)
def test_odd_but_legal_json_is_taken(data: bytes, value: Any) -> None:
    codec = codec_for(None)
    assert codec.decode(data) == value
    assert codec.decode_all([data, None]) == [value, None]
    assert type(codec.decode(codec.encode(value))) is type(value)


def test_big_numbers_survive_a_typed_field_and_minus_zero_its_sign() -> None:
    class Big(Record):
        v: int

    assert codec_for(Big).decode(codec_for(Big).encode(Big(2**64 + 1))) == Big(2**64 + 1)
    assert math.copysign(1, codec_for(None).decode(b"-0.0")) == -1


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b'{"user":"u","amount":"7"}', "amount"),
        (b'{"user":"u"}', "amount"),
        (b'{"user":"u","amount":null}', "amount"),
        (b'{"user":1,"amount":1}', "user"),
        (b"[1,2]", "object"),
        (b"42", "object"),
        (b"null", "object"),
    ],
)
def test_a_record_of_another_shape_is_refused_and_the_field_named(data: bytes, field: str) -> None:
    with pytest.raises(ValueRefusedError, match=field):
        codec_for(Click).decode(data)


def test_members_that_the_type_does_not_ask_for_are_ignored() -> None:
    assert codec_for(Click).decode(b'{"user":"u","amount":1,"new":{"a":[1]}}') == Click("u", 1.0)


def test_coercion_takes_numbers_in_quotes_but_no_nan() -> None:
    codec = codec_for(Lax)
    assert codec.decode(b'{"amount":"1.5","count":"3"}') == Lax(1.5, 3)
    for text in (b'"nan"', b'"inf"', b'"-Infinity"', b'"1e400"'):
        with pytest.raises(ValueRefusedError):
            codec.decode(b'{"amount":' + text + b"}")
        with pytest.raises(ValueRefusedError):
            codec.decode_all([b'{"amount":' + text + b"}"])
        with pytest.raises(ValueRefusedError):
            codec_for(ModelClick).decode(b'{"user":"u","amount":' + text + b"}")


@pytest.mark.parametrize("kind", [*CLICKS, int, float, dict, list])
def test_a_table_codec_takes_json_null_for_any_type(kind: Any) -> None:
    codec = codec_for(kind, null=True)
    assert codec.encode(None) == b"null"
    assert codec.decode(b"null") is None
    assert codec.encode_all([None]) == [b"null"]


def test_raw_and_text_take_bytes_and_text_as_they_are() -> None:
    raw, text = codec_for(bytes), codec_for(str, "text")
    assert codec_for(None, "raw") is raw
    for data in (b"", b"null", b"\xff\0", b"\xef\xbb\xbfx"):
        assert raw.decode(raw.encode(data)) == data
    assert raw.encode(bytearray(b"a")) == b"a"
    for words in ("", "null", "a\0é"):
        assert text.decode(text.encode(words)) == words
    with pytest.raises(ValueRefusedError, match="expected bytes"):
        raw.encode("text")
    with pytest.raises(ValueRefusedError, match="expected str"):
        text.encode(b"bytes")
    with pytest.raises(ValueRefusedError, match="utf-8"):
        text.decode(b"\xff")
    with pytest.raises(ValueRefusedError):
        text.encode("\ud800")


def test_what_can_be_shared_is_known() -> None:
    class Frozen(Record, frozen=True):
        user: str
        amount: float | None = None

    class Holder(Record, frozen=True):
        items: list[int]

    assert all(codec_for(kind).immutable for kind in (int, float, str, bytes, bool, Frozen))
    assert not any(
        codec_for(kind).immutable for kind in (None, dict, list, Click, Holder, ModelClick, DataClick)
    )


def test_what_has_no_json_is_refused_with_its_type() -> None:
    for value in (object(), "\ud800", {"a": object()}, 10**5000):
        with pytest.raises(ValueRefusedError, match="can't be encoded"):
            codec_for(None).encode(value)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueRefusedError, match="nested too deeply"):
        codec_for(None).encode(endless)


def test_subclasses_of_scalars_and_records_inside_others_are_written() -> None:
    class Number(float):
        pass

    class Word(str):
        __slots__ = ()

    value = {
        "n": Number(1.5),
        "w": Word("x"),
        "f": FaustClick(user="u", amount=1.0),
        "m": ModelClick(user="u", amount=2),
    }
    assert json.loads(codec_for(None).encode(value)) == {
        "n": 1.5, "w": "x", "f": {"user": "u", "amount": 1.0}, "m": {"user": "u", "amount": 2.0},
    }  # fmt: skip


def test_a_model_inside_a_record_comes_back() -> None:
    class Outer(Record):
        click: ModelClick
        other: FaustClick

    value = Outer(ModelClick(user="u", amount=1), FaustClick(user="v", amount=2.0))
    back = codec_for(Outer).decode(codec_for(Outer).encode(value))
    assert back.click == value.click
    assert back.other.asdict() == {"user": "v", "amount": 2.0}


def test_a_type_that_is_no_value_type_and_an_unknown_serializer_are_refused() -> None:
    class Plain:
        pass

    with pytest.raises(MisuseError, match=r"Plain can't be a value type; take a headwater\.Record"):
        codec_for(Plain)
    with pytest.raises(MisuseError, match="no serializer 'pickle'; there are: json, raw, text"):
        codec_for(None, "pickle")


def test_the_refusal_shows_the_head_of_a_long_value() -> None:
    with pytest.raises(ValueRefusedError, match=r"\(3000000 bytes\)") as caught:
        codec_for(None).decode(b"x" * 3_000_000)
    assert len(str(caught.value)) < 500
