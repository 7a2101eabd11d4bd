"""What an agent reads, as it was declared: topics, then operators in order; a group_by splits it into stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from headwater.core.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: `filter` keeps what the function says yes to, `map` replaces the value by what it returns.

    `flat_map` replaces it by each of what the function's iterable holds, under the same key and event time.
    """

    kind: Literal["filter", "map", "flat_map"]
    function: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class GroupBy:
    """A change of key: a field's name, or a function of the value."""

    key: str | Callable[[Any], Any]
    name: str = ""
    partitions: int | None = None

    def key_of(self, value: Any) -> Any:
        """Return the new key of a decoded value."""
        if callable(self.key):
            return self.key(value)
        return value[self.key] if isinstance(value, dict) else getattr(value, self.key)


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """Topics read, and operators on them. `before` run ahead of the group_by, `after` behind it.

    `value_type` is that of the values behind `before` where those change them; None is any JSON.
    """

    topics: tuple[str, ...]
    before: tuple[Step, ...] = ()
    group_by: GroupBy | None = None
    after: tuple[Step, ...] = ()
    value_type: Any = None

    @property
    def keeps_values(self) -> bool:
        """Whether values reach the group_by as they came: their bytes can be sent on, and read as the topic's type."""
        return all(step.kind == "filter" for step in self.before)

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

    Takes a field's name, a class attribute such as `Click.user`, a faust field descriptor, or a callable.
    """
    if isinstance(key, str):
        return key
    field = getattr(key, "field", None)
    if isinstance(field, str):
        return field
    if type(key).__name__ == "member_descriptor":
        return str(key.__name__)
    if callable(key):
        return key  # type: ignore[no-any-return]
    raise TopologyError(
        f"group_by takes a field's name, a field such as Click.user, or a function; found {key!r}"
    )
