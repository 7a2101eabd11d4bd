"""Refusing what faust has and Headwater replaces: each name says what takes its place. Holds no behaviour of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from headwater.core.errors import HeadwaterError

if TYPE_CHECKING:
    from collections.abc import Callable


class RefusedError(HeadwaterError):
    """A part of faust that Headwater does not have was asked for; the message names what to use."""

    exit_code = 2


def refuse(owner: str, name: str, instead: str) -> NoReturn:
    """Raise RefusedError for a name of faust's."""
    raise RefusedError(f"{owner}.{name} is faust's and is not there in Headwater; instead: {instead}")


class RefusedNameError(RefusedError, AttributeError):
    """A name of the module `faust` that `headwater` does not have (an AttributeError too, for `hasattr`)."""


NAMES: dict[str, str] = {
    "Channel": "in-memory channels lie outside the log; use a topic (`memory://` log in tests) or an `asyncio.Queue`",
    "ChannelT": "in-memory channels lie outside the log; use a topic (`memory://` log in tests) or an `asyncio.Queue`",
    "Codec": 'give a topic `value_type=` or `value_serializer=` ("json", "raw", "text")',
    "current_event": "`stream.current_event`",
    "EventT": "interface types; annotate with `Event`, `Stream`, `Topic`, `Service`",
    "GlobalTable": "`app.GlobalTable(name, source=topic)`",
    "GSSAPICredentials": "`App(kafka={…})` with librdkafka's sasl.* settings",
    "HoppingWindow": "`headwater.windows.Hopping`, or `table.hopping(…)`",
    "ModelOptions": "give the options as class keywords of `Record`",
    "OAuthCredentials": "`App(kafka={…})` with librdkafka's sasl.* settings",
    "SASLCredentials": "`App(kafka={…})` with librdkafka's sasl.* settings",
    "Schema": "give `key_type=` and `value_type=` to the topic",
    "ServiceT": "interface types; annotate with `Event`, `Stream`, `Topic`, `Service`",
    "SetGlobalTable": "`app.GlobalTable(name, source=topic)` with lists as values",
    "Settings": "keywords of `App`, the environment under `HEADWATER_`, `headwater config`",
    "SlidingWindow": "`headwater.windows.Sliding` on a stream",
    "SSLCredentials": "`App(kafka={…})` with librdkafka's ssl.* settings",
    "StreamT": "interface types; annotate with `Event`, `Stream`, `Topic`, `Service`",
    "TopicT": "interface types; annotate with `Event`, `Stream`, `Topic`, `Service`",
    "TumblingWindow": "`headwater.windows.Tumbling`, or `table.tumbling(…)`",
    "uuid": "use `uuid.uuid4`; in an agent `stream.random`, so that a replay gives the same",
    "VERSION": "use `headwater.__version__`",
    "version_info": "use `headwater.__version__`",
    "VersionInfo": "use `headwater.__version__`",
    "Window": "the classes of `headwater.windows`",
}
"""Names of the module `faust` that are not at the root of this package, and what to use instead."""


def refuse_name(name: str) -> None:
    """Raise RefusedNameError for a name of faust's; return for any other."""
    if name in NAMES:
        raise RefusedNameError(f"headwater has no {name!r}, which is faust's; instead: {NAMES[name]}")


def refused_method(owner: str, name: str, instead: str) -> Callable[..., Any]:
    """Return a method that raises as soon as it is called (not when it is awaited or iterated)."""

    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        refuse(owner, name, instead)

    method.__name__ = name
    method.__qualname__ = f"{owner}.{name}"
    method.__doc__ = f"Refused: {instead}."
    method.refused = instead  # type: ignore[attr-defined]
    return method


def refused_property(owner: str, name: str, instead: str) -> property:
    """Return a property that raises when it is read."""

    def read(self: Any) -> NoReturn:
        refuse(owner, name, instead)

    read.__doc__ = f"Refused: {instead}."
    return property(read)


class RefusedSignal:
    """A signal of faust's that is never sent here: connecting to it raises."""

    def __init__(self, owner: str, name: str, instead: str) -> None:
        """Note what to say."""
        self._owner = owner
        self._name = name
        self.refused = instead

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise RefusedError."""
        refuse(self._owner, self._name, self.refused)

    connect = disconnect = send = __call__


def refuse_members(
    cls: type,
    *,
    methods: dict[str, str] | None = None,
    properties: dict[str, str] | None = None,
) -> None:
    """Give a class members that raise: {name: what to use instead}.

    They are set after the class is made, so that type checkers go on seeing faust's signatures there.
    """
    for name, instead in (methods or {}).items():
        setattr(cls, name, refused_method(cls.__name__, name, instead))
    for name, instead in (properties or {}).items():
        setattr(cls, name, refused_property(cls.__name__, name, instead))
