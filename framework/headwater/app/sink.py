"""Sinks: where what an agent yields goes: topics, other agents, plain functions. Sends nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from headwater.core.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Callable


class Sink:
    """A function that is called with each value an agent yields: at dispatch, at least once.

    `replay="suppress"` (as for plain functions): not called in a generation that is not the promoted one;
    `"emit"`: called in every generation.
    """

    __slots__ = ("function", "replay")

    def __init__(
        self, function: Callable[[Any], Any], replay: Literal["suppress", "emit"] = "suppress"
    ) -> None:
        """Take a plain or async function of one value."""
        if not callable(function):
            raise MisuseError(f"sink(…) takes a function of one value; found {function!r}")
        if replay not in ("suppress", "emit"):
            raise MisuseError(f"sink(replay=…) is 'suppress' or 'emit'; found {replay!r}")
        self.function = function
        self.replay = replay

    def __call__(self, value: Any) -> Any:
        """Call the function."""
        return self.function(value)

    def __repr__(self) -> str:
        return f"sink({getattr(self.function, '__name__', self.function)!s}, replay={self.replay!r})"


def sink(function: Callable[[Any], Any], *, replay: Literal["suppress", "emit"] = "suppress") -> Sink:
    """Declare a function as a sink: `@app.agent(topic, sink=[hw.sink(notify, replay="emit")])`."""
    return Sink(function, replay)
