"""Facts: what is known at declaration of a stream's values and keys. Guesses nothing: what isn't known is None."""

from __future__ import annotations

from dataclasses import dataclass
from types import GenericAlias, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from headwater.stream.plan import CompositeKey

_SCALARS = (int, str, float, bool, bytes)


@dataclass(frozen=True, slots=True)
class Facts:
    """`value_type`: what values are (None: any JSON). `key_type`: what the record's key is shown as (None: text).

    `key`: the selector whose result the record's key is, where it is one.
    """

    value_type: Any = None
    key_type: Any = None
    key: Any = None


def facts_of_topic(topic: Any) -> Facts:
    """Return what a topic's declaration says."""
    serializer: Any = topic.value_serializer
    value_type: Any = {"raw": bytes, "text": str}.get(serializer, topic.value_type)
    key_type = topic.key_type
    if key_type is None and topic.keyed_by is not None:
        key_type = type_of(topic.keyed_by, value_type)
    return Facts(value_type, key_type, topic.keyed_by)


def type_of(selector: Any, value_type: Any) -> Any:
    """Return the type that a selector takes from values of a type, or None where it isn't known.

    Of a composite key a tuple, of its parts' types where all are known.
    """
    if isinstance(selector, CompositeKey):
        parts = tuple(type_of(part, value_type) for part in selector.parts)
        return GenericAlias(tuple, parts) if parts and None not in parts else tuple
    if not isinstance(selector, str) or not isinstance(value_type, type):
        return None
    if issubclass(value_type, msgspec.Struct):
        found = next((f.type for f in msgspec.structs.fields(value_type) if f.name == selector), None)
    else:
        try:
            found = get_type_hints(value_type).get(selector)
        except (NameError, TypeError):
            return None
    if get_origin(found) in (Union, UnionType):
        rest = [option for option in get_args(found) if option is not type(None)]
        found = rest[0] if len(rest) == 1 else None
    return found if found in _SCALARS else None


def has_field(selector: Any, value_type: Any) -> bool:
    """Whether a selector's fields are there, as far as a Struct's type says."""
    if isinstance(selector, CompositeKey):
        return all(has_field(part, value_type) for part in selector.parts)
    if not isinstance(selector, str) or not isinstance(value_type, type):
        return True
    if not issubclass(value_type, msgspec.Struct):
        return True
    return any(field.name == selector for field in msgspec.structs.fields(value_type))


def comparable(left: Any, right: Any) -> bool:
    """Whether keys of two types can be equal as bytes: text and whole numbers can, a float and a whole number can't.

    None is a type that isn't known.
    """
    if left is None or right is None or tuple in (left, right):
        return True
    left_parts, right_parts = _parts(left), _parts(right)
    if left_parts is None and right_parts is None:
        return _kind(left) == _kind(right)
    if left_parts is None or right_parts is None:
        return False
    # Inside a composite key 1 and "1" are written differently.
    return len(left_parts) == len(right_parts) and all(
        one is two or None in (one, two) for one, two in zip(left_parts, right_parts, strict=True)
    )


def _parts(key_type: Any) -> tuple[Any, ...] | None:
    return get_args(key_type) if get_origin(key_type) is tuple else None


def _kind(key_type: Any) -> str:
    return "float" if key_type is float else "bool" if key_type is bool else "text"
