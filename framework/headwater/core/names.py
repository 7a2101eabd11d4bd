"""Names of internal topics, made and parsed in one place; and what a name may hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from headwater.core.errors import NameRefusedError

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}\Z")
_PART = re.compile(r"[a-zA-Z0-9_-]{1,100}\Z")

NAMED_KINDS = ("changelog", "repartition", "late", "out")
PLAIN_KINDS = ("tasks", "epochs", "dead")


@dataclass(frozen=True, slots=True)
class InternalTopic:
    """The parts of an internal topic's name; `name` is empty for kinds without one."""

    app: str
    generation: str
    kind: str
    name: str = ""

    def __str__(self) -> str:
        tail = f".{self.name}" if self.name else ""
        return f"{self.app}.{self.generation}.{self.kind}{tail}"


def check_topic(name: str) -> str:
    """Return a topic's name, or raise NameRefusedError where a log could not hold it."""
    if not _TOPIC.match(name) or name in (".", ".."):
        raise NameRefusedError(
            f"a topic can't be named {name!r}: 1 to 249 of the letters a-z A-Z 0-9 . _ - are allowed; choose another name"
        )
    return name


def check_part(name: str, what: str) -> str:
    """Return an app, generation, agent, table or stream name, or raise NameRefusedError (no dots allowed)."""
    if not _PART.match(name):
        raise NameRefusedError(
            f"{what} can't be named {name!r}: 1 to 100 of the letters a-z A-Z 0-9 _ - are allowed, no dot; choose another name"
        )
    return name


def group_of(app: str, generation: str) -> str:
    """Return the consumer group of a generation."""
    return f"{app}.{generation}"


def control_topic(app: str) -> str:
    """Return the topic that holds the pointer and the list of generations."""
    return f"{app}.control"


def internal_topic(app: str, generation: str, kind: str, name: str = "") -> str:
    """Return an internal topic's name; `name` is needed for the kinds that have one."""
    return _internal_topic(app, generation, kind, name)


@lru_cache(maxsize=1024)  # each epoch names them all
def _internal_topic(app: str, generation: str, kind: str, name: str) -> str:
    if kind not in (*NAMED_KINDS, *PLAIN_KINDS) or (kind in NAMED_KINDS) != bool(name):
        raise ValueError(f"no internal topic kind {kind!r} with name {name!r}")
    check_part(app, "an app")
    check_part(generation, "a generation")
    if not _may_name(kind, name):
        raise NameRefusedError(
            f"a {kind} topic can't be made for {name!r}: letters a-z A-Z 0-9 _ - are allowed"
            f"{', as agent.name' if kind == 'repartition' else ''}; choose another name"
        )
    return check_topic(str(InternalTopic(app, generation, kind, name)))


def parse_internal(topic: str, app: str) -> InternalTopic | None:
    """Return the parts of an internal topic of `app`, or None where the topic is a user's own."""
    parts = topic.split(".", 3)
    if parts[0] != app or len(parts) < 3:
        return None
    kind, name = parts[2], parts[3] if len(parts) == 4 else ""
    if not _PART.match(parts[1]):
        return None
    if (kind in PLAIN_KINDS and len(parts) == 3) or (kind in NAMED_KINDS and _may_name(kind, name)):
        return InternalTopic(app, parts[1], kind, name)
    return None


def _may_name(kind: str, name: str) -> bool:
    """Return whether a topic of this kind can have this name: one part; of a repartition two; of an output any topic."""
    if kind in PLAIN_KINDS:
        return not name
    if kind == "out":
        return _TOPIC.match(name) is not None and name not in (".", "..")
    parts = name.split(".")
    return len(parts) == (2 if kind == "repartition" else 1) and all(map(_PART.match, parts))


def refuse_internal(topic: str, app: str) -> str:
    """Return a user topic's name, or raise NameRefusedError where it would pass for an internal one of `app`."""
    check_topic(topic)
    if topic == control_topic(app) or parse_internal(topic, app) is not None:
        raise NameRefusedError(
            f"topic {topic!r} would pass for an internal topic of app {app!r}; choose another name"
        )
    return topic
