"""Keys as bytes and back: one encoding for topic keys, group_by and table keys, so that equal keys share a home.

Bytes stay as they are; `str` is UTF-8; `int` is decimal text; everything else is compact JSON (dict names sorted,
Structs as their fields). Table key "900" and record key 900 are therefore one key.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.core.errors import HeadwaterError, KeyRefusedError
from headwater.core.values import codec_for, encode_foreign, refuse_non_finite

if TYPE_CHECKING:
    from collections.abc import Callable

# "deterministic" sorts dict names and sets, so that equal keys have equal bytes in every process and PYTHONHASHSEED.
_encode_json = msgspec.json.Encoder(order="deterministic", enc_hook=encode_foreign).encode
_SHOWN_MAX = 80


def encode_key(key: Any) -> bytes | None:
    """Return a key's bytes; None is the null key. Raises KeyRefusedError."""
    kind = type(key)
    if kind is bytes or key is None:
        return key  # type: ignore[no-any-return]
    try:
        if kind is str:
            return key.encode()  # type: ignore[no-any-return]
        if kind is int:
            return b"%d" % key
        if isinstance(key, enum.Enum):
            return encode_key(key.value)
        if isinstance(key, str):
            return str.encode(key)
        if isinstance(key, int) and not isinstance(key, bool):
            return b"%d" % int(key)
        if isinstance(key, (bytes, bytearray, memoryview)):
            return bytes(key)
        data = _encode_json(key)
        if b"null" in data:  # how msgspec writes NaN and infinities too
            refuse_non_finite(key)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError, HeadwaterError) as error:
        raise KeyRefusedError(
            f"a key of type {kind.__name__} can't be encoded: {error}; found {_shown(key)}; a key is text, bytes, "
            "a number, or a tuple, list, Struct or dict of such"
        ) from error
    return data


def decode_key(data: bytes | None, key_type: Any = None) -> Any:
    """Return a key as `key_type` says; None: text where the bytes are UTF-8, else the bytes.

    Raises KeyRefusedError where the bytes aren't what `encode_key` makes of such a key.
    """
    if data is None:
        return None
    if key_type is None or key_type is Any or key_type is object:
        return key_text(data)
    if key_type is bytes:
        return data
    try:
        if isinstance(key_type, type):
            if issubclass(key_type, str):
                return data.decode() if key_type is str else key_type(data.decode())
            if issubclass(key_type, int) and key_type is not bool:
                number = int(data)
                # "007" and "+7" are keys of their own: as 7 they would have another home.
                if b"%d" % number != data:
                    raise ValueError("not a whole number as it is written, without zeros or signs in front")
                return number if key_type is int else key_type(number)
        return codec_for(key_type, "json").decode(data)
    except (TypeError, ValueError, HeadwaterError) as error:
        name = getattr(key_type, "__name__", str(key_type))
        raise KeyRefusedError(
            f"a key can't be read as {name}: {error}; found {_shown(data)}; "
            "declare another key_type (bytes takes every key), or send keys of this type"
        ) from error


def shown_key(key_type: Any = None) -> Callable[[bytes], Any]:
    """Return what makes of a key's bytes plain data for JSON: as `key_type` says, text where it says nothing."""
    if key_type in (None, str):
        return key_text

    def show(data: bytes) -> Any:
        return msgspec.to_builtins(decode_key(data, key_type), enc_hook=encode_foreign)

    return show


def key_text(data: bytes) -> str | bytes:
    """Return the key under which Python-side caches hold these bytes: text where they are UTF-8, else the bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def canonical_key(key: Any) -> str | bytes | None:
    """Return `key_text(encode_key(key))`, without the detour for text, which most keys are."""
    if type(key) is str and key.isascii():
        return key
    data = encode_key(key)
    return None if data is None else key_text(data)


def _shown(key: Any) -> str:
    try:
        text = repr(key)
    except RecursionError:
        return "a value nested too deeply to show"
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"
