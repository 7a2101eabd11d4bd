"""SetTable: a table whose rows are sets, each stored as one sorted JSON list. Changing a set writes its whole row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet
from typing import TYPE_CHECKING, Any

from faust.tables.sets import SetTable as FaustSetTable

from headwater.app.refused import refuse_members
from headwater.app.table import Table
from headwater.core.errors import MisuseError, ValueRefusedError
from headwater.core.keys import decode_key
from headwater.core.values import codec_for

if TYPE_CHECKING:
    from headwater.app.owner import AppLike

_ELEMENTS = (None, str, int, float, bool)
_any_json = codec_for(None)


class SetTable(Table, FaustSetTable):  # type: ignore[type-arg]
    """Sets by key. `table[key]` is a set whose changes are the table's; a key never set reads as an empty set."""

    def __init__(self, app: AppLike, *, name: str, value_type: Any = None, **options: Any) -> None:
        """Check a declaration; `value_type` is the elements' type: str, int, float, bool, or None for any of them."""
        if value_type not in _ELEMENTS:
            raise MisuseError(
                f"set table {name!r}: elements are str, int, float or bool (or tuples of them); found value_type "
                f"{value_type!r}; for other values take app.Table with the element in the key"
            )
        if options.pop("default", None) not in (None, set):
            raise MisuseError(f"set table {name!r}: a missing row is an empty set; leave `default` out")
        Table.__init__(self, app, name=name, value_type=None, default=None, **options)
        self.element_type = value_type
        self.codec = codec_for(list)

    def __getitem__(self, key: Any) -> TableSet:  # type: ignore[override]
        return TableSet(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set a row to the elements of any iterable."""
        self.store(key, set(_frozen_all(value)))

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the set of a row that is there, or `default`."""
        return TableSet(self, key) if key in self else default

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return a row's set; where there is none, set it first."""
        if key not in self:
            self[key] = () if default is None else default
        return TableSet(self, key)

    def pop(self, key: Any, *default: Any) -> Any:
        """Remove a row and return its elements as a plain set."""
        if key not in self and default:
            return default[0]
        return set(_frozen_all(super().pop(key)))

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        for data, elements in self._rows():
            yield decode_key(data, self.key_type), set(_frozen_all(elements))

    def elements(self, key: Any) -> set[Any]:
        """Return a row's elements as a plain set; empty where there is no row."""
        return set(_frozen_all(Table.get(self, key, ())))

    def store(self, key: Any, elements: set[Any]) -> None:
        """Write a row."""
        if self.element_type is not None:
            for element in elements:
                if type(element) is not self.element_type:
                    raise ValueRefusedError(
                        f"set table {self.name!r} holds {self.element_type.__name__}; found {element!r}"
                    )
        # Sorted by their JSON bytes: the same set is the same value, whatever the order it was filled in.
        Table.__setitem__(self, key, sorted(elements, key=_any_json.encode))


class TableSet(MutableSet[Any]):
    """The set of one row: reads the row when asked, writes it when changed."""

    __slots__ = ("_key", "_table")

    def __init__(self, table: SetTable, key: Any) -> None:
        """Stand for a row, there or not."""
        self._table = table
        self._key = key

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:
        # What `|`, `&` and `-` make is a plain set.
        return set(it)

    def __contains__(self, element: object) -> bool:
        return element in self._table.elements(self._key)

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(self._table.elements(self._key), key=_any_json.encode))

    def __len__(self) -> int:
        return len(self._table.elements(self._key))

    def __repr__(self) -> str:
        return repr(self._table.elements(self._key))

    def add(self, value: Any) -> None:
        """Add an element; one that is there already changes nothing."""
        self.update((value,))

    def discard(self, value: Any) -> None:
        """Remove an element, if it is there."""
        self.difference_update((value,))

    def update(self, *others: Iterable[Any]) -> None:
        """Add the elements of all."""
        before = self._table.elements(self._key)
        after = before.union(*map(_frozen_all, others))
        self._change(before, after)

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Remove the elements of all."""
        before = self._table.elements(self._key)
        self._change(before, before.difference(*map(_frozen_all, others)))

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Keep the elements that all have."""
        before = self._table.elements(self._key)
        self._change(before, before.intersection(*map(_frozen_all, others)))

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        """Keep the elements that one of both has, not both."""
        before = self._table.elements(self._key)
        self._change(before, before.symmetric_difference(_frozen_all(other)))

    def clear(self) -> None:
        """Remove all elements; the row stays, empty."""
        self._change(self._table.elements(self._key), set())

    def copy(self) -> set[Any]:
        """Return the elements as a plain set."""
        return self._table.elements(self._key)

    def union(self, *others: Iterable[Any]) -> set[Any]:
        """Return the elements of this and all others as a plain set."""
        return self.copy().union(*others)

    def intersection(self, *others: Iterable[Any]) -> set[Any]:
        """Return the elements that all have as a plain set."""
        return self.copy().intersection(*others)

    def difference(self, *others: Iterable[Any]) -> set[Any]:
        """Return the elements that no other has as a plain set."""
        return self.copy().difference(*others)

    def _change(self, before: set[Any], after: set[Any]) -> None:
        if after != before:
            self._table.store(self._key, after)


def _frozen_all(elements: Iterable[Any]) -> Iterator[Any]:
    return map(_frozen, elements)


def _frozen(element: Any) -> Any:
    """Return an element as a set can hold it: JSON has lists where Python had tuples."""
    return tuple(map(_frozen, element)) if isinstance(element, (list, tuple)) else element


refuse_members(
    SetTable,
    properties={
        "manager": "an agent that changes the sets, and agent.cast(…)",
        "Manager": "an agent that changes the sets, and agent.cast(…)",
        "manager_topic_name": "an agent that changes the sets, and agent.cast(…)",
        "manager_topic_suffix": "an agent that changes the sets, and agent.cast(…)",
        "start_manager": "an agent that changes the sets, and agent.cast(…)",
    },
)
