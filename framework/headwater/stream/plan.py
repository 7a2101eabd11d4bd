"""What an agent reads, as it was declared: topics, then operators in order; a group_by splits it into stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from headwater.core.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Callable


class RecordKey:
    """The type of `RECORD_KEY`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "RECORD_KEY"


RECORD_KEY: Final = RecordKey()
"""As the key of a group_by: the key that the record has. Its records only change their partition count."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: `filter` keeps what the function says yes to, `map` replaces the value by what it returns.

    `flat_map` replaces it by each of what it returns. `retypes`: what it returns may be of another type than the topic's,
    so that a group_by behind it writes and reads plain JSON.
    """

    kind: Literal["filter", "map", "flat_map"]
    function: Callable[[Any], Any]
    retypes: bool = False


@dataclass(frozen=True, slots=True)
class GroupBy:
    """A change of key: a field's name, a function of the value, or RECORD_KEY."""

    key: str | Callable[[Any], Any] | RecordKey
    name: str = ""
    partitions: int | None = None

    def key_of(self, value: Any) -> Any:
        """Return the new key of a decoded value."""
        if callable(self.key):
            return self.key(value)
        assert isinstance(self.key, str)
        return value[self.key] if isinstance(value, dict) else getattr(value, self.key)


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """Topics read, and operators on them. `before` run ahead of the group_by, `after` behind it.

    `broadcast`: each task reads all partitions (inlets of operators only), ahead of what it reads else of the same time.
    """

    topics: tuple[str, ...]
    before: tuple[Step, ...] = ()
    group_by: GroupBy | None = None
    after: tuple[Step, ...] = ()
    broadcast: bool = False

    def then(self, step: Step) -> StreamPlan:
        """Return the plan with one more operator."""
        if self.group_by is None:
            return replace(self, before=(*self.before, step))
        return replace(self, after=(*self.after, step))

    def grouped(self, group_by: GroupBy) -> StreamPlan:
        """Return the plan with a change of key. Raises TopologyError for a second one."""
        if self.group_by is not None:
            raise TopologyError(
                "a stream has one group_by; send the grouped records to a topic and read that with another agent"
            )
        return replace(self, group_by=group_by)


def key_selector(key: Any) -> str | Callable[[Any], Any]:
    """Return what `group_by` was given as a field name or a function.

    Takes a field's name, a class attribute such as `Click.user`, a faust field descriptor, a callable, or a tuple or list
    of these (a composite key; none of them: one group of all records).
    """
    if isinstance(key, str):
        return key
    if isinstance(key, (tuple, list)):
        return CompositeKey(tuple(map(key_selector, key)))
    field = getattr(key, "field", None)
    if isinstance(field, str):
        return field
    if type(key).__name__ == "member_descriptor":
        return str(key.__name__)
    if callable(key):
        return key  # type: ignore[no-any-return]
    raise TopologyError(
        f"group_by takes a field's name, a field such as Click.user, a function, or a tuple of these; found {key!r}"
    )


def getter(selector: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that takes a field, by name, from a dict or an object; a function stays what it is."""
    if not isinstance(selector, str):
        return selector
    name = selector

    def take(value: Any) -> Any:
        return value[name] if type(value) is dict or isinstance(value, dict) else getattr(value, name)

    return take


class CompositeKey:
    """A key of several parts: a function that gives them as a tuple. Equal where its parts are."""

    __slots__ = ("_takers", "parts")

    def __init__(self, parts: tuple[str | Callable[[Any], Any], ...]) -> None:
        """Take field names and functions of the value."""
        self.parts = parts
        self._takers = tuple(map(getter, parts))

    def __call__(self, value: Any) -> tuple[Any, ...]:
        """Return the parts of a decoded value."""
        return tuple([take(value) for take in self._takers])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CompositeKey) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        return f"CompositeKey{self.parts!r}"
