"""Record: a value type with typed fields, a msgspec Struct with the methods and class options of faust's Record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from headwater.core.errors import ValueRefusedError
from headwater.core.record_meta import RecordMeta, RecordOptions
from headwater.core.values import codec_for, decode_foreign, encode_foreign

if TYPE_CHECKING:
    from collections.abc import Mapping

_Self = TypeVar("_Self", bound="Record")


class Record(msgspec.Struct, metaclass=RecordMeta):
    """A value type: declare fields with types and defaults.

    Unknown members of the JSON are ignored; types are checked when a record is read. Class options: faust's
    (`serializer`, `namespace`, `isodates`, `decimals`, `coerce`, `validation`, `abstract`) and msgspec's (`frozen`,
    `order`, `rename`, `tag`, `kw_only`, `omit_defaults`, `forbid_unknown_fields`…; `gc` is off unless asked for).
    """

    def asdict(self) -> dict[str, Any]:
        """Return the fields by name; values stay as they are."""
        return msgspec.structs.asdict(self)

    def to_representation(self) -> Any:
        """Return what JSON holds of this record, as dicts, lists and scalars."""
        return msgspec.to_builtins(self, enc_hook=encode_foreign)

    def dumps(self, *, serializer: str | None = None) -> bytes:
        """Return this record's bytes. Raises ValueRefusedError."""
        return codec_for(type(self), serializer).encode(self)

    @classmethod
    def loads(cls: type[_Self], data: bytes | str, *, serializer: str | None = None) -> _Self:
        """Return the record in these bytes. Raises ValueRefusedError."""
        return cast(
            "_Self", codec_for(cls, serializer).decode(data.encode() if isinstance(data, str) else data)
        )

    @classmethod
    def from_data(cls: type[_Self], data: Mapping[str, Any] | Record, *, preferred_type: Any = None) -> _Self:
        """Return the record with these fields; unknown ones are ignored. Raises ValueRefusedError.

        `preferred_type` is faust's, for its metadata, and has no effect here.
        """
        if isinstance(data, cls):
            return data
        options: RecordOptions = cls.__record_options__  # type: ignore[attr-defined]
        try:
            return msgspec.convert(data, cls, strict=not options.coerce, dec_hook=decode_foreign)
        except (msgspec.ValidationError, RecursionError, ValueError) as error:
            raise ValueRefusedError(
                f"a {type(data).__name__} is no {cls.__name__}: {error}; give every field the type that is declared"
            ) from error

    def derive(self: _Self, *objects: Record, **fields: Any) -> _Self:
        """Return a copy with the fields of `objects`, then with `fields`, changed."""
        changed: dict[str, Any] = {}
        for other in objects:
            changed.update(msgspec.structs.asdict(other))
        return msgspec.structs.replace(self, **{**changed, **fields})

    def validate(self) -> list[ValueRefusedError]:
        """Return what is wrong with the types of the fields; nothing is checked when a record is made by hand."""
        try:
            type(self).from_data(msgspec.structs.asdict(self))
        except ValueRefusedError as error:
            return [error]
        return []

    def validate_or_raise(self) -> None:
        """Raise the ValueRefusedError that `validate` would return."""
        for error in self.validate():
            raise error

    def is_valid(self) -> bool:
        """Return whether the fields have the types that are declared."""
        return not self.validate()

    @property
    def validation_errors(self) -> list[ValueRefusedError]:
        """What `validate` returns."""
        return self.validate()
