"""The metaclass of Record: takes faust's class options, hands msgspec its own, and fills in what faust fills in.

Options that mean something else here, or nothing, are refused by name with what to do instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, dataclass_transform, get_args

import msgspec

from headwater.core.errors import MisuseError
from headwater.core.values import SERIALIZERS

if TYPE_CHECKING:
    from collections.abc import Mapping

# Refused when true; false is how they are here anyway.
_REFUSED_WHEN_TRUE = {
    "include_metadata": 'the "__faust" member is never written (and ignored on reading); leave the option out',
    "allow_blessed_key": "to read several types from one topic take value_type=A | B with class A(Record, tag=True)",
    "polymorphic_fields": "to read several types from one field write `field: A | B` with class A(Record, tag=True)",
    "lazy_creation": "forward references are resolved at first use; leave the option out",
}
_REFUSED = {
    "coercions": "give the field the type it has in JSON, and make a property of what is computed from it",
    "date_parser": "datetime fields take ISO 8601 text; for other forms declare `str`, and parse in a property",
}
_INHERITED = ("serializer", "isodates", "decimals", "coerce", "validation")


class RecordOptions(msgspec.Struct, frozen=True):
    """Faust's class options of a Record, as they are in force."""

    serializer: str | None = None
    namespace: str = ""
    isodates: bool = True
    """datetime fields are read from ISO 8601 text in any case."""
    decimals: bool = True
    """Decimal fields are read from text and numbers in any case."""
    coerce: bool = False
    """Take "1" for an int field, and so on."""
    validation: bool = False
    """Types are checked in any case; as in faust, this implies `coerce`."""
    abstract: bool = False


def _take_options(
    name: str, bases: tuple[type, ...], namespace: dict[str, Any], options: dict[str, Any]
) -> RecordOptions:
    """Take faust's options out of `options`, with those of the nearest base below them."""
    for option, instead in _REFUSED_WHEN_TRUE.items():
        if options.pop(option, None):
            raise MisuseError(f"class {name}: Record can't have {option}=True: {instead}")
    for option, instead in _REFUSED.items():
        if options.pop(option, None):
            raise MisuseError(f"class {name}: Record can't have {option}: {instead}")
    inherited = next(
        (base.__record_options__ for base in bases if hasattr(base, "__record_options__")), RecordOptions()
    )
    kept: dict[str, Any] = {option: getattr(inherited, option) for option in _INHERITED}
    for option in _INHERITED:
        given = options.pop(option, None)
        if given is not None:
            kept[option] = given
            if option == "validation":
                kept["coerce"] = True
    if kept["serializer"] not in (None, "json"):
        raise MisuseError(
            f"class {name}: Record can't have serializer={kept['serializer']!r}: a record is JSON; "
            f"for other bytes declare the topic with value_type=bytes ({', '.join(SERIALIZERS)} are the topic's)"
        )
    qualified = f"{namespace.get('__module__', '')}.{namespace.get('__qualname__', name)}"
    return RecordOptions(
        **kept,
        namespace=options.pop("namespace", None) or qualified,
        abstract=bool(options.pop("abstract", False)),
    )


def _refuse_descriptors(name: str, namespace: Mapping[str, Any]) -> None:
    for attribute, default in namespace.items():
        if type(default).__module__.startswith("faust.models"):
            raise MisuseError(
                f"class {name}: field {attribute!r} is a faust {type(default).__name__}; write the type and the default "
                "(`amount: float = 0.0`), msgspec.field(name=…) for another name in JSON, and msgspec.Meta(ge=…, "
                "max_length=…) for limits"
            )


def _default_optionals(namespace: dict[str, Any]) -> None:
    """Give `X | None` fields the default None, and put them behind the required ones, as faust's __init__ does."""
    annotations: dict[str, Any] = dict(namespace.get("__annotations__", {}))
    implied = [field for field, kind in annotations.items() if field not in namespace and _is_optional(kind)]
    if not implied:
        return
    for field in implied:
        namespace[field] = None
    fields = [field for field, kind in annotations.items() if not _is_class_variable(kind)]
    required = [field for field in fields if field not in namespace]
    last = fields.index(required[-1]) if required else -1
    if any(fields.index(field) < last for field in implied):
        behind = [field for field in annotations if field not in implied]
        namespace["__annotations__"] = {field: annotations[field] for field in (*behind, *implied)}


def _follows_defaults(bases: tuple[type, ...], namespace: Mapping[str, Any]) -> bool:
    """Return whether a field without default would follow a base class's field with one."""
    has_default = any(getattr(base, "__struct_defaults__", ()) for base in bases)
    return has_default and any(
        field not in namespace and not _is_class_variable(kind)
        for field, kind in namespace.get("__annotations__", {}).items()
    )


def _is_optional(kind: Any) -> bool:
    if isinstance(kind, str):  # not evaluated: the names in it may not exist yet
        text = kind.replace(" ", "").removeprefix("typing.").removeprefix("t.")
        return (
            text.endswith("|None")
            or text.startswith("None|")
            or (text.startswith("Optional[") and text[-1] == "]")
        )
    return type(None) in get_args(kind)


def _is_class_variable(kind: Any) -> bool:
    return "ClassVar" in (kind if isinstance(kind, str) else str(kind))


def _refuse_abstract(record: Any) -> NoReturn:
    name = type(record).__name__
    raise MisuseError(f"{name} is declared abstract=True and can't have instances; make a subclass of it")


# Said again for type checkers: only below a class that names the metaclass itself may subclasses be frozen or not.
@dataclass_transform(field_specifiers=(msgspec.field,))
class RecordMeta(msgspec.StructMeta):
    """Takes faust's class options out, hands msgspec its own, and fills in what faust fills in."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **options: Any
    ) -> RecordMeta:
        """Make a record class. Raises MisuseError for an option or field that can't be kept."""
        inner = namespace.pop("Options", None)
        if inner is not None:
            options = {
                **{key: item for key, item in vars(inner).items() if not key.startswith("_")},
                **options,
            }
        kept = _take_options(name, bases, namespace, options)
        _refuse_descriptors(name, namespace)
        _default_optionals(namespace)
        # Records are leaves: without cyclic references the garbage collector need not look at them (17 % of the time
        # of a stream, as measured elsewhere).
        options.setdefault("gc", False)
        if "kw_only" not in options and _follows_defaults(bases, namespace):
            options["kw_only"] = True  # faust allows it: required fields below a base class's defaults
        if kept.abstract:
            namespace["__post_init__"] = _refuse_abstract
        cls = super().__new__(mcls, name, bases, namespace, **options)
        if kept.abstract:
            # msgspec has noted the method for this class; subclasses must not find it.
            del cls.__post_init__  # type: ignore[attr-defined]
        cls.__record_options__ = kept  # type: ignore[attr-defined]
        return cls
