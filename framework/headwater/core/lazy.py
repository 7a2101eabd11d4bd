"""LazyColumn: an Arrow array that reads as a sequence of Python values, converted only if someone looks inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Iterator


class LazyColumn(Sequence[Any]):
    """A column of a batch. Slices share memory; the first and last value are had without converting the rest."""

    __slots__ = ("_values", "array")

    def __init__(self, array: Any) -> None:
        """Take an Arrow array."""
        self.array = array
        self._values: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return LazyColumn(self.array[at]) if self._values is None else self._values[at]
        if self._values is None and at in (0, -1):
            return self.array[at].as_py()
        return self._list()[at]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._list())

    def __eq__(self, other: object) -> bool:
        return self._list() == list(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        raise TypeError("a column can't be hashed")

    def _list(self) -> list[Any]:
        if self._values is None:
            self._values = self.array.to_pylist()
        return self._values


def lazy(column: Any) -> Sequence[Any]:
    """Return a column as a sequence without converting it: an Arrow array as LazyColumn, anything else as it is."""
    return LazyColumn(column) if hasattr(column, "to_pylist") else column
