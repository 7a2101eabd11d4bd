"""Aggregates: how records are folded into one value. Pure: an accumulator is plain data and is replaced, never changed.

Where an accumulator would grow with the records (different values, lists), its elements lie beside it as rows of a state
(`Beside`), so that a record costs the same however many there were.
Inputs are what an aggregate takes of a record; None is left out, as in SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.core.values import encode_foreign
from headwater.stream.plan import CompositeKey, getter

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.stream.operator import RowsByKey

_SCALARS = frozenset({int, float, str, bool})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_SEQUENCE = Struct(">Q")
_encode = msgspec.json.Encoder(enc_hook=encode_foreign, order="deterministic").encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A declared aggregate: its kind, what it takes of a value (None: the whole), and of which values.

    `by` orders first and last. The functions are those of a user's own (kind "own").
    """

    kind: str
    take: str | Callable[[Any], Any] | None = None
    where: Callable[[Any], Any] | None = None
    by: str | CompositeKey | Callable[[Any], Any] | None = None
    zero: Any = None
    add: Callable[[Any, Any], Any] | None = None
    merge: Callable[[Any, Any], Any] | None = None
    result: Callable[[Any], Any] | None = None
    subtract: Callable[[Any, Any], Any] | None = None


class Beside:
    """Rows of one aggregate of one group, beside its accumulator."""

    __slots__ = ("prefix", "state")

    def __init__(self, state: RowsByKey, prefix: bytes) -> None:
        """Take the state and what the rows' keys begin with."""
        self.state = state
        self.prefix = prefix

    def rows(self) -> list[tuple[bytes, Any]]:
        """Return (key behind the prefix, value) in key order."""
        cut = len(self.prefix)
        return [(key[cut:], value) for key, value in self.state.scan(self.prefix)]


class Part:
    """One aggregate of a fold. `beside` is None where `grows` is False."""

    grows = False
    can_merge = True
    can_subtract = True

    zero: Any = None

    def __init__(self, aggregate: Aggregate) -> None:
        """Take the declaration."""
        self.input = _filtered(self.taken(aggregate), aggregate.where)

    def taken(self, aggregate: Aggregate) -> Callable[[Any], Any]:
        """Return the function from a value to the input."""
        return _identity if aggregate.take is None else getter(aggregate.take)

    def folded_by(self) -> str | Callable[[Any, Any], Any] | None:
        """Return how `hot.fold_windows` adds a value."""
        return self.step()

    def step(self) -> Callable[[Any, Any], Any]:
        """Return input and add as one function of accumulator and value, where nothing lies beside: a call less a record."""
        take, add = self.input, self.add

        def stepped(acc: Any, value: Any) -> Any:
            found = take(value)
            return acc if found is None else add(acc, found, None)

        return stepped

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Return the accumulator with one input more."""
        raise AssertionError(self)

    def subtract(self, acc: Any, found: Any, beside: Any) -> Any:
        """Return the accumulator with one input less, which was added before."""
        raise AssertionError(self)

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Return the accumulator of both, `acc` being the earlier one; the other's rows are left where they are."""
        raise AssertionError(self)

    def result(self, acc: Any, beside: Any) -> Any:
        """Return the aggregate's value."""
        return acc


class CountOf(Part):
    """How many."""

    zero = 0

    def folded_by(self) -> Callable[[Any, Any], Any] | None:
        """Count every value, where each counts."""
        return None if self.input is _one else self.step()

    def step(self) -> Callable[[Any, Any], Any]:
        """Count every value without looking at it, where each counts."""
        return _one_more if self.input is _one else super().step()

    def taken(self, aggregate: Aggregate) -> Callable[[Any], Any]:
        """Count every value, or those that are there."""
        return _one if aggregate.take is None else super().taken(aggregate)

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Count one more."""
        return acc + 1

    def subtract(self, acc: Any, found: Any, beside: Any) -> Any:
        """Count one less."""
        return acc - 1

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Count both."""
        return acc + other


class SumOf(Part):
    """The sum in the order of the records; whole numbers are exact."""

    can_subtract = False

    def __init__(self, aggregate: Aggregate) -> None:
        """Take the declaration."""
        super().__init__(aggregate)
        self._field = aggregate.take if isinstance(aggregate.take, str) and aggregate.where is None else None

    def folded_by(self) -> str | Callable[[Any, Any], Any] | None:
        """Sum a field by its name."""
        return self._field if type(self) is SumOf and self._field is not None else self.step()

    def step(self) -> Callable[[Any, Any], Any]:
        """Add without a call between."""
        if type(self) is not SumOf:
            return super().step()
        take = self.input

        def stepped(acc: Any, value: Any) -> Any:
            found = take(value)
            return acc if found is None else found if acc is None else acc + found

        return stepped

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Add."""
        return found if acc is None else acc + found

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Add both."""
        return other if acc is None else acc if other is None else acc + other


class MeanOf(SumOf):
    """Sum and count."""

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Add and count."""
        return [1, found] if acc is None else [acc[0] + 1, acc[1] + found]

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Add and count both."""
        if acc is None or other is None:
            return other if acc is None else acc
        return [acc[0] + other[0], acc[1] + other[1]]

    def result(self, acc: Any, beside: Any) -> Any:
        """Divide."""
        return None if acc is None else acc[1] / acc[0]


class ExactSumOf(Part):
    """The exact sum, from which what was added can be taken away: [count, whole numbers, floats, n, k], floats being n / 2^k."""

    zero: Any = (0, 0, 0, 0, 0)

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Add exactly."""
        return self._moved(acc, found, 1)

    def subtract(self, acc: Any, found: Any, beside: Any) -> Any:
        """Subtract exactly."""
        return self._moved(acc, found, -1)

    def _moved(self, acc: Any, found: Any, sign: int) -> Any:
        count, whole, floats, n, k = acc
        if not isinstance(found, float):
            return [count + sign, whole + sign * found, floats, n, k]
        above, below = found.as_integer_ratio()
        digits = below.bit_length() - 1
        if digits > k:
            n, k = n << (digits - k), digits
        return [count + sign, whole, floats + sign, n + sign * (above << (k - digits)), k]

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Add both exactly."""
        k = max(acc[4], other[4])
        n = (acc[3] << (k - acc[4])) + (other[3] << (k - other[4]))
        return [acc[0] + other[0], acc[1] + other[1], acc[2] + other[2], n, k]

    def result(self, acc: Any, beside: Any) -> Any:
        """Return the sum: rounded once, whole where all numbers are."""
        count, whole, floats, n, k = acc
        if not count:
            return None
        return ((whole << k) + n) / (1 << k) if floats else whole


class ExactMeanOf(ExactSumOf):
    """The mean from which records can be taken away."""

    def result(self, acc: Any, beside: Any) -> Any:
        """Divide the exact sum, rounded once."""
        count, whole, _, n, k = acc
        return ((whole << k) + n) / (count << k) if count else None


class ExtremeOf(Part):
    """The least or the greatest."""

    can_subtract = False

    def __init__(self, aggregate: Aggregate) -> None:
        """Take the declaration."""
        super().__init__(aggregate)
        self.greatest = aggregate.kind == "max"

    def taken(self, aggregate: Aggregate) -> Callable[[Any], Any]:
        """Take what has an order."""
        take, kind = super().taken(aggregate), aggregate.kind

        def ordered(value: Any) -> Any:
            found = take(value)
            if type(found) in _SCALARS or found is None:
                return found
            raise TypeError(f"{kind} takes numbers or text; found {found!r}")

        return ordered

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Compare; of equal ones the first stays."""
        return found if acc is None or (found > acc if self.greatest else found < acc) else acc

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Compare."""
        return acc if other is None else self.add(acc, other, beside)


class RetractedExtremeOf(ExtremeOf):
    """The least or greatest of what is left: all values lie beside, with how often each is there."""

    grows = True
    can_subtract = True

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Compare, and note the value."""
        key = beside.prefix + _encode(found)
        there = beside.state.get(key)
        beside.state.put(key, [found, 1 if there is None else there[1] + 1])
        return super().add(acc, found, beside)

    def subtract(self, acc: Any, found: Any, beside: Any) -> Any:
        """Forget one such value; where it was the extreme, look for the next."""
        key = beside.prefix + _encode(found)
        there = beside.state.get(key)
        if there is None:
            return acc
        if there[1] > 1:
            beside.state.put(key, [found, there[1] - 1])
            return acc
        beside.state.delete(key)
        if found != acc:
            return acc
        left = [value for _, (value, _) in beside.rows()]
        return None if not left else max(left) if self.greatest else min(left)

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Compare, and note the other's values too."""
        for key, (value, times) in others.rows():
            there = beside.state.get(beside.prefix + key)
            beside.state.put(beside.prefix + key, [value, times if there is None else there[1] + times])
        return ExtremeOf.add(self, acc, other, beside) if other is not None else acc


class DistinctOf(Part):
    """How many different values: each lies beside, with how often it is there."""

    grows = True
    zero = 0

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Count a value that is new."""
        key = beside.prefix + _element(found)
        there = beside.state.get(key)
        beside.state.put(key, 1 if there is None else there + 1)
        return acc + 1 if there is None else acc

    def subtract(self, acc: Any, found: Any, beside: Any) -> Any:
        """Forget one such value."""
        key = beside.prefix + _element(found)
        there = beside.state.get(key)
        if there is None:
            return acc
        if there > 1:
            beside.state.put(key, there - 1)
            return acc
        beside.state.delete(key)
        return acc - 1

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Count the other's that are new."""
        for key, times in others.rows():
            there = beside.state.get(beside.prefix + key)
            beside.state.put(beside.prefix + key, times if there is None else there + times)
            acc += there is None
        return acc


class SeenOf(DistinctOf):
    """How many different values, where none is ever taken away: one that was seen changes nothing."""

    can_subtract = False

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Count a value that is new."""
        key = beside.prefix + _element(found)
        if beside.state.get(key) is not None:
            return acc
        beside.state.put(key, 1)
        return acc + 1


class CollectOf(Part):
    """A list of all: each lies beside, numbered. The accumulator is the next number."""

    grows = True
    zero = 0

    def taken(self, aggregate: Aggregate) -> Callable[[Any], Any]:
        """Take plain data."""
        return _plain_of(super().taken(aggregate))

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Put it at the end."""
        beside.state.put(beside.prefix + _SEQUENCE.pack(acc), [found])
        return acc + 1

    def subtract(self, acc: Any, found: Any, beside: Any) -> Any:
        """Take the first such one out."""
        for key, (value,) in beside.rows():
            if value == found:
                beside.state.delete(beside.prefix + key)
                break
        return acc

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Put the other's at the end."""
        for number, (_, row) in enumerate(others.rows(), acc):
            beside.state.put(beside.prefix + _SEQUENCE.pack(number), row)
        return acc + other

    def result(self, acc: Any, beside: Any) -> Any:
        """Return them in order."""
        return [value for _, (value,) in beside.rows()]


class EndOf(Part):
    """The first or the last, by merged order or by `by`: then the accumulator is [by, value]."""

    can_subtract = False

    def __init__(self, aggregate: Aggregate) -> None:
        """Take the declaration."""
        self.last = aggregate.kind == "last"
        self.by = None if aggregate.by is None else getter(aggregate.by)
        super().__init__(aggregate)

    def taken(self, aggregate: Aggregate) -> Callable[[Any], Any]:
        """Take plain data, with what orders it."""
        take, by = _plain_of(super().taken(aggregate)), self.by
        if by is None:
            return take

        def with_order(value: Any) -> Any:
            found = take(value)
            return None if found is None else [orderable(by(value)), found]

        return with_order

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Keep the one that counts; of equal ones the first, or the last."""
        if acc is None:
            return found
        if self.by is None:
            return found if self.last else acc
        if self.last:
            return acc if found[0] < acc[0] else found
        return found if found[0] < acc[0] else acc

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Keep the one that counts."""
        return acc if other is None else self.add(acc, other, beside)

    def result(self, acc: Any, beside: Any) -> Any:
        """Return the value without its order."""
        return acc if acc is None or self.by is None else acc[1]


class OwnOf(Part):
    """A user's own functions. They may change an accumulator in place: they are given a copy."""

    def __init__(self, aggregate: Aggregate) -> None:
        """Take the declaration."""
        super().__init__(aggregate)
        self.own = aggregate
        self.can_merge = aggregate.merge is not None
        self.can_subtract = aggregate.subtract is not None

    @property
    def zero(self) -> Any:
        """Begin anew."""
        return plain(self.own.zero() if callable(self.own.zero) else self.own.zero)

    def add(self, acc: Any, found: Any, beside: Any) -> Any:
        """Call the user's add."""
        assert self.own.add is not None
        return plain(self.own.add(_copied(acc), found))

    def subtract(self, acc: Any, found: Any, beside: Any) -> Any:
        """Call the user's subtract."""
        assert self.own.subtract is not None
        return plain(self.own.subtract(_copied(acc), found))

    def merge(self, acc: Any, other: Any, beside: Any, others: Any) -> Any:
        """Call the user's merge."""
        assert self.own.merge is not None
        return plain(self.own.merge(_copied(acc), _copied(other)))

    def result(self, acc: Any, beside: Any) -> Any:
        """Call the user's result."""
        return acc if self.own.result is None else plain(self.own.result(_copied(acc)))


_PARTS: dict[str, type[Part]] = {
    "count": CountOf,
    "sum": SumOf,
    "mean": MeanOf,
    "min": ExtremeOf,
    "max": ExtremeOf,
    "distinct": SeenOf,
    "first": EndOf,
    "last": EndOf,
    "collect": CollectOf,
    "own": OwnOf,
}
_RETRACTED: dict[str, type[Part]] = {
    "sum": ExactSumOf,
    "mean": ExactMeanOf,
    "min": RetractedExtremeOf,
    "max": RetractedExtremeOf,
    "distinct": DistinctOf,
}


def part_of(aggregate: Aggregate, *, retracts: bool) -> Part:
    """Return how an aggregate is folded; `retracts`: records are taken away too."""
    kinds = {**_PARTS, **_RETRACTED} if retracts else _PARTS
    return kinds[aggregate.kind](aggregate)


def plain(value: Any) -> Any:
    """Return a value as JSON would give it back: Structs as dicts, tuples as lists, times as text."""
    return value if type(value) in _SCALARS else msgspec.to_builtins(value, enc_hook=encode_foreign)


def orderable(value: Any) -> Any:
    """Return what a value is ordered by, as plain data: numbers and text as they are, times as ms, tuples as lists."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, (tuple, list)):
        return [orderable(item) for item in value]
    if isinstance(value, datetime):
        return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH) // _MS
    raise TypeError(f"an order is made of numbers, text or times; found {value!r}")


def _plain_of(take: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: plain(take(value))


def _copied(acc: Any) -> Any:
    return acc if type(acc) in _SCALARS or acc is None else _decode(_encode(acc))


def _filtered(take: Callable[[Any], Any], where: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    return take if where is None else lambda value: take(value) if where(value) else None


def _element(found: Any) -> bytes:
    # Minus zero is zero.
    return _encode(found + 0.0 if type(found) is float else found)


def _identity(value: Any) -> Any:
    return value


def _one(value: Any) -> Any:
    return 1


def _one_more(acc: Any, value: Any) -> Any:
    return acc + 1
