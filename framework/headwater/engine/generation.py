"""Generation: what is known of one run of an app's logic over a history, as its metadata record holds it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import msgspec

from headwater.core.names import internal_topic
from headwater.core.times import format_time

LIVE = "live"
"""The name of an app's first generation."""

RUNNING, FINISHED, FAILED, PROMOTED, DISCARDED = "running", "finished", "failed", "promoted", "discarded"


@dataclass(frozen=True, slots=True)
class Generation:
    """One run of an app's logic over a history. Times are ms since the epoch; None is an open end.

    `names` is the header name table, `bounds` maps "topic/partition" to [start, end or None]. `drain`: its end counts as END-OF-TIME. `extra` keeps fields that
    a newer version wrote.
    """

    name: str
    app: str
    state: str = RUNNING
    parent: str | None = None
    time_from: int | None = None
    time_until: int | None = None
    order: str = "live"
    follow: bool = True
    drain: bool = False
    fingerprint: str = ""
    topology: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    bounds: dict[str, list[int | None]] = field(default_factory=dict)
    created_ms: int = 0
    finished_ms: int | None = None
    ends: dict[str, Any] | None = None
    error: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the metadata record's value."""
        shown = {name: getattr(self, name) for name in _FIELDS}
        return msgspec.json.encode(shown | self.extra)

    @classmethod
    def from_json(cls, data: bytes) -> Generation:
        """Read a metadata record's value; fields this version doesn't know are kept. Raises ValueError."""
        found = msgspec.json.decode(data, type=dict[str, Any])
        known = {name: found.pop(name) for name in _FIELDS if name in found}
        if "name" not in known or "app" not in known:
            raise ValueError("a generation's metadata has no name or no app")
        return cls(**known, extra=found)

    @property
    def is_bounded(self) -> bool:
        """Whether it ends by itself."""
        return not self.follow


_FIELDS = tuple(f.name for f in fields(Generation) if f.name != "extra")


def where_it_ends(generation: Generation) -> str | None:
    """Return, for a bounded generation, up to where it has processed; None for one that goes on."""
    if not generation.is_bounded:
        return None
    if generation.time_until is None:
        return "the end of what was there when it was replayed"
    return format_time(generation.time_until)


def output_topic(app_id: str, generation: str, topic: str) -> str:
    """Return where a generation's output of a topic is: its shadow, or for the first generation the topic itself."""
    return topic if generation == LIVE else internal_topic(app_id, generation, "out", topic)
