"""Values as bytes and back: a codec for each value type a topic or table may have.

JSON is read and written by msgspec, strictly: no NaN or infinity in either direction (1e400 too), no lone surrogates,
no second document, no trailing comma. Whole numbers are exact at any size. Of repeated members the last wins. A UTF-8
byte order mark in front is taken (RFC 8259, section 8.1). Nesting beyond Python's recursion limit is refused. What a
declared type doesn't ask for is ignored, and not looked at.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from types import UnionType
from typing import TYPE_CHECKING, Any, NoReturn, Union, get_args, get_origin

import msgspec

from headwater.core.errors import MisuseError, ValueRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SERIALIZERS = ("json", "raw", "text")

_BOM = b"\xef\xbb\xbf"
_SHOWN_MAX = 80
_SCALARS = (str, bytes, int, float, bool)
# A lax decoder (coerce=True) makes a non-finite float of text only, and of no other text; a unicode escape may spell it too.
_NON_FINITE_TEXT = re.compile(rb"nan|inf|\\u", re.IGNORECASE)


class Codec:
    """Turns values of one type into bytes and back.

    `encode(value)` and `decode(data)` raise ValueRefusedError. `immutable` says that a decoded value may be shared.
    The `…_all` methods do the same for a batch, at the price of the bare C function a value.
    """

    __slots__ = ("_check", "_dump", "_is_json", "_load", "immutable", "type_name")

    def __init__(
        self,
        type_name: str,
        dump: Callable[[Any], bytes],
        load: Callable[[bytes], Any],
        *,
        immutable: bool,
        is_json: bool,
        check: Callable[[bytes, Any], None] | None = None,
    ) -> None:
        """Take the bare functions; `is_json`: `dump` writes non-finite floats as the text null.

        `check(data, value)` looks at what was decoded where `load` is laxer than JSON.
        """
        self.type_name = type_name
        self.immutable = immutable
        self._dump = dump
        self._load = load
        self._is_json = is_json
        self._check = check

    def __repr__(self) -> str:
        return f"Codec({self.type_name})"

    @property
    def is_json(self) -> bool:
        """Whether the bytes are JSON."""
        return self._is_json

    def encode(self, value: Any) -> bytes:
        """Return a value's bytes. Raises ValueRefusedError."""
        try:
            data = self._dump(value)
            if self._is_json and b"null" in data:
                refuse_non_finite(value, nulls=data.count(b"null"))
        except Exception as error:
            self._refuse_encode(value, error)
        return data

    def encode_all(self, values: Sequence[Any]) -> list[bytes]:
        """Return the bytes of each value; None is a value here too, not a tombstone."""
        dump = self._dump
        try:
            encoded = [dump(value) for value in values]
        except Exception:
            return [self.encode(value) for value in values]  # raises at the one that fails, and names it
        # One search over all of them costs a fraction of a search in each.
        if self._is_json and b"null" in b"\n".join(encoded):
            for value, data in zip(values, encoded, strict=True):
                nulls = data.count(b"null")
                if nulls:
                    try:
                        refuse_non_finite(value, nulls=nulls)
                    except Exception as error:
                        self._refuse_encode(value, error)
        return encoded

    def decode(self, data: bytes) -> Any:
        """Return the value of these bytes. Raises ValueRefusedError."""
        try:
            # Written out here as well: a call more is a fifth of the time.
            return self._load(data) if self._check is None else self._load_checked(data)
        except Exception as error:
            if not (self._is_json and data.startswith(_BOM)):
                self._refuse_decode(data, error)
        # A mark is rare, so it is looked for only where reading failed.
        try:
            return self._load_checked(data[len(_BOM) :])
        except Exception as error:
            self._refuse_decode(data, error)

    def decode_all(self, values: Sequence[bytes | None]) -> list[Any]:
        """Return the value of each; None (a tombstone) stays None. Raises ValueRefusedError at the first bad one."""
        load = self._load
        if self._check is None:
            try:
                # Tombstones are rare, and `map` over a C function costs a third less than a comprehension. None is no JSON,
                # so a reader of JSON finds a tombstone itself; to look for one first would cost a tenth.
                if self._is_json or None not in values:
                    return list(map(load, values))  # type: ignore[arg-type]
            except Exception:
                pass  # said below, by the record that fails: a tombstone or a byte order mark may be all that is wrong
        decode = self.decode
        return [None if data is None else decode(data) for data in values]

    def _load_checked(self, data: bytes) -> Any:
        value = self._load(data)
        if self._check is not None:
            self._check(data, value)
        return value

    def _refuse_encode(self, value: Any, error: Exception) -> NoReturn:
        if isinstance(error, MemoryError):
            raise error
        raise ValueRefusedError(
            f"a value of type {type(value).__name__} can't be encoded as {self.type_name}: {_reason(error)}; "
            f"found {_shown(value)}"
        ) from error

    def _refuse_decode(self, data: bytes, error: Exception) -> NoReturn:
        if isinstance(
            error, MemoryError
        ):  # the machine's fault, not the record's: it must not become a dead letter
            raise error
        raise ValueRefusedError(
            f"a value can't be decoded as {self.type_name}: {_reason(error)}; found {_shown(data)}; "
            "send what the type asks for, or declare another value_type or serializer"
        ) from error


def codec_for(value_type: Any = None, serializer: str | None = None, *, null: bool = False) -> Codec:
    """Return the codec for a value type; None is any JSON.

    `serializer`: "json" (the default), "raw" (bytes as they are; the default for `bytes`) or "text" (UTF-8).
    `null` also takes JSON's null, as None, whatever the type: what tables need. Raises MisuseError for a type that
    can't be a value type.
    """
    if serializer is None:
        serializer = "raw" if value_type is bytes else "json"
    if serializer == "raw":
        return _RAW
    if serializer == "text":
        return _TEXT
    if serializer != "json":
        raise MisuseError(f"no serializer {serializer!r}; there are: {', '.join(SERIALIZERS)}")
    try:
        return _json_codec(value_type, null)
    except TypeError as error:
        if isinstance(error, msgspec.MsgspecError) or "unhashable" not in str(error):
            raise MisuseError(f"{_name(value_type)} can't be a value type: {error}") from error
        raise MisuseError(f"{value_type!r} can't be a value type; take a class") from error


@lru_cache(maxsize=512)
def _json_codec(value_type: Any, null: bool) -> Codec:
    if value_type is None or value_type is Any or value_type is object:
        return Codec("JSON", _encode_json, _decode_json, immutable=False, is_json=True)
    if not _is_struct(value_type):
        if hasattr(value_type, "model_validate_json"):
            return _model_codec(value_type, null)
        if hasattr(value_type, "from_data") and hasattr(value_type, "to_representation"):
            return _foreign_record_codec(value_type, null)
    _refuse_unknown_types(value_type)
    options = getattr(value_type, "__record_options__", None)
    lax = bool(options and options.coerce)
    decoder = msgspec.json.Decoder(
        value_type | None if null else value_type, strict=not lax, dec_hook=decode_foreign
    )
    return Codec(
        _name(value_type), _encode_json, decoder.decode, immutable=_is_immutable(value_type),
        is_json=True, check=_check_lax if lax else None,
    )  # fmt: skip


def _model_codec(model: Any, null: bool) -> Codec:
    def dump(value: Any) -> bytes:
        if not hasattr(value, "model_dump_json"):
            return _encode_json(value)
        data: bytes = value.model_dump_json(by_alias=True).encode()
        # A model's configuration may write infinities as tokens that are not JSON, or as text.
        refuse_non_finite(value)
        return data

    def load(data: bytes) -> Any:
        # pydantic's own parser takes NaN and turns 1e400 into infinity, so the strict one goes first.
        if _decode_json(data) is None and null:
            return None
        return model.model_validate_json(data)

    return Codec(_name(model), dump, load, immutable=False, is_json=True, check=_check_foreign)


def _foreign_record_codec(record: Any, null: bool) -> Codec:
    def load(data: bytes) -> Any:
        fields = _decode_json(data)
        if fields is None and null:
            return None
        if not isinstance(fields, dict):
            raise TypeError(f"expected an object, got {type(fields).__name__}")
        return record.from_data(fields)

    return Codec(_name(record), _encode_json, load, immutable=False, is_json=True, check=_check_foreign)


def encode_foreign(value: Any) -> Any:
    """Return what JSON can hold of a value msgspec doesn't know: models, faust Records, subclasses of scalars."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if hasattr(value, "model_dump"):
        # mode="json" would hide infinities behind null.
        return value.model_dump(by_alias=True)
    if hasattr(value, "to_representation"):
        return value.to_representation()
    raise TypeError(f"objects of type {type(value).__name__} have no JSON form")


def decode_foreign(wanted: Any, found: Any) -> Any:
    """Return a model or faust Record inside a Struct or dataclass."""
    if hasattr(wanted, "model_validate"):
        return wanted.model_validate(found)
    if hasattr(wanted, "from_data"):
        return wanted.from_data(found)
    raise TypeError(f"can't read {wanted.__name__} from JSON")


def refuse_non_finite(value: Any, *, nulls: int | None = None) -> None:
    """Raise ValueError where a float in the value is NaN or infinite: JSON has no such numbers.

    `nulls` is how often "null" stands in the value's JSON; where each is a None of the first level, all is said.
    """
    if value is None:
        return
    if nulls is not None:
        if type(value) is dict:
            if list(value.values()).count(None) == nulls:
                return
        elif isinstance(value, msgspec.Struct) and not value.__struct_config__.omit_defaults:
            # (With omit_defaults a None that is left out could stand for a NaN that is not.)
            if msgspec.structs.astuple(value).count(None) == nulls:
                return
    plain = (
        value.model_dump()
        if hasattr(value, "model_dump")
        else msgspec.to_builtins(value, enc_hook=encode_foreign)
    )
    if not _is_finite(plain):
        raise ValueError("NaN and infinities are not JSON; store None or leave the field out")


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_is_finite(name) and _is_finite(item) for name, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_finite, value))
    return True


def _check_lax(data: bytes, value: Any) -> None:
    if _NON_FINITE_TEXT.search(data):
        refuse_non_finite(value)


def _check_foreign(data: bytes, value: Any) -> None:
    # pydantic and faust read numbers out of text in ways of their own ("1e4_00" is infinite), so all are looked at.
    refuse_non_finite(value)


def _is_struct(value_type: Any) -> bool:
    return isinstance(value_type, type) and issubclass(value_type, msgspec.Struct)


def _is_immutable(value_type: Any) -> bool:
    """Return whether values can be shared: scalars, and frozen Structs whose fields are scalars or such Structs."""
    if value_type in _SCALARS or value_type is type(None):
        return True
    if get_origin(value_type) in (Union, UnionType):
        return all(map(_is_immutable, get_args(value_type)))
    if not _is_struct(value_type) or not value_type.__struct_config__.frozen:
        return False
    return all(_is_immutable(field.type) for field in msgspec.structs.fields(value_type))


def _refuse_unknown_types(value_type: Any) -> None:
    try:
        info = msgspec.inspect.type_info(value_type)
    except (TypeError, NameError) as error:
        raise MisuseError(f"{_name(value_type)} can't be a value type: {error}") from error
    if isinstance(info, msgspec.inspect.CustomType):
        raise MisuseError(
            f"{_name(value_type)} can't be a value type; take a headwater.Record, faust Record, dataclass, "
            "pydantic model, dict, list, int, float, str, bytes, or None for any JSON"
        )


def _take_bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError("expected bytes")


def _take_text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    raise TypeError("expected str")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, msgspec.MsgspecError | ValueError | TypeError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return repr(value[:_SHOWN_MAX]) + (f"… ({len(value)} bytes)" if len(value) > _SHOWN_MAX else "")
    try:
        text = repr(value)
    except Exception as error:
        return f"a value whose repr fails with {type(error).__name__}"
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def _name(value_type: Any) -> str:
    return str(getattr(value_type, "__name__", value_type))


_encode_json = msgspec.json.Encoder(enc_hook=encode_foreign).encode
_decode_json = msgspec.json.Decoder().decode
_RAW = Codec("bytes", _take_bytes, bytes, immutable=True, is_json=False)
_TEXT = Codec("text", _take_text, bytes.decode, immutable=True, is_json=False)
