"""Fold: several aggregates at once over the records of a group. Its accumulator is a list, one entry an aggregate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.core.tumbling import TumblingFold
from headwater.stream.aggregate import Aggregate, Beside, Part, part_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from headwater.stream.operator import RowsByKey
    from headwater.stream.results import Results
    from headwater.stream.window import Tumbling


class Scratch:
    """A state that is thrown away."""

    def __init__(self) -> None:
        """Begin empty."""
        self._rows: dict[bytes, Any] = {}

    def get(self, key: bytes) -> Any:
        """Return a row's value, or None."""
        return self._rows.get(key)

    def put(self, key: bytes, value: Any) -> None:
        """Set a row."""
        self._rows[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a row."""
        self._rows.pop(key, None)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, Any]]:
        """Yield rows in key order."""
        for key in sorted(self._rows):
            if key.startswith(prefix) and key >= start:
                yield key, self._rows[key]


class Fold:
    """Aggregates by name. `retracts`: records are taken away too."""

    def __init__(self, aggregates: Mapping[str, Aggregate], *, retracts: bool = False) -> None:
        """Take the declarations in their order."""
        self.names = tuple(aggregates)
        self.parts = tuple(part_of(aggregate, retracts=retracts) for aggregate in aggregates.values())
        self.grows = any(part.grows for part in self.parts)
        self.takes_values = any(aggregate.kind == "own" for aggregate in aggregates.values())
        self._inputs = tuple(part.input for part in self.parts)
        self._adds = tuple(part.add for part in self.parts)
        self._steps = tuple(part.step() for part in self.parts)
        # Where a result is the accumulator itself, nothing is asked.
        self._is_result = all(type(part).result is Part.result for part in self.parts)

    def tumbling(self, window: Tumbling, results: Results, *, is_read: bool) -> TumblingFold | None:
        """Return what `hot.fold_windows` needs to know, or None where it can't do this: rows beside, a user's own beginning."""
        far = 1 << 60
        if self.grows or self.takes_values or window.size_ms > far or results.grace_ms > far:
            return None
        return TumblingFold(
            window.size_ms, window.offset_ms, results.grace_ms, tuple(part.folded_by() for part in self.parts),
            tuple(part.zero for part in self.parts), self.names, None if self._is_result else self.result,
            results.shown, results.key, is_read,
        )  # fmt: skip

    def fold(self, inputs: Iterable[list[Any]]) -> dict[str, Any]:
        """Return the aggregates of some records at once; nothing is kept."""
        acc = self.zero()
        beside = self.beside(Scratch(), b"") if self.grows else None
        for found in inputs:
            acc = self.add(acc, found, beside)
        return self.result(acc, beside)

    def inputs(self, value: Any) -> list[Any]:
        """Return what each aggregate takes of a value; None where it takes nothing. Runs the user's functions."""
        return [take(value) for take in self._inputs]

    def step(self, acc: Any, value: Any) -> list[Any]:
        """Return the accumulator with one value more, where nothing lies beside (`grows` is False)."""
        return [step(one, value) for step, one in zip(self._steps, acc, strict=True)]

    def zero(self) -> list[Any]:
        """Return the accumulator of no records."""
        return [part.zero for part in self.parts]

    def beside(self, state: RowsByKey | None, prefix: bytes) -> list[Beside | None]:
        """Return where the aggregates of a group keep rows; `prefix` is the group's own."""
        if state is None or not self.grows:
            return [None] * len(self.parts)
        return [
            Beside(state, prefix + bytes([number])) if part.grows else None
            for number, part in enumerate(self.parts)
        ]

    def add(self, acc: Any, inputs: list[Any], beside: list[Beside | None] | None = None) -> list[Any]:
        """Return the accumulator with one record more."""
        if beside is None:
            return [
                one if found is None else add(one, found, None)
                for add, one, found in zip(self._adds, acc, inputs, strict=True)
            ]
        return [
            one if found is None else add(one, found, rows)
            for add, one, found, rows in zip(self._adds, acc, inputs, beside, strict=True)
        ]

    def subtract(self, acc: Any, inputs: list[Any], beside: list[Beside | None]) -> list[Any]:
        """Return the accumulator with one record less, which was added before."""
        return [
            one if found is None else part.subtract(one, found, rows)
            for part, one, found, rows in zip(self.parts, acc, inputs, beside, strict=True)
        ]

    def merge(
        self, acc: Any, other: Any, beside: list[Beside | None], others: list[Beside | None]
    ) -> list[Any]:
        """Return the accumulator of both groups, `acc` being the earlier one."""
        return [
            part.merge(one, two, rows, more)
            for part, one, two, rows, more in zip(self.parts, acc, other, beside, others, strict=True)
        ]

    def result(self, acc: Any, beside: list[Beside | None] | None = None) -> dict[str, Any]:
        """Return the aggregates' values by name."""
        if self._is_result:
            return dict(zip(self.names, acc, strict=True))
        rows = [None] * len(self.parts) if beside is None else beside
        return {
            name: part.result(one, row)
            for name, part, one, row in zip(self.names, self.parts, acc, rows, strict=True)
        }

    def drop(self, state: RowsByKey, prefix: bytes) -> None:
        """Remove what a group's aggregates keep beside."""
        if self.grows:
            for key in [key for key, _ in state.scan(prefix)]:
                state.delete(key)
