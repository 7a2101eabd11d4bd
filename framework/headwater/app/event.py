"""Event: one record as an agent holds it, looked up in columns only where it is asked for. Faust's Event in name."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from faust.events import Event as FaustEvent
from faust.types.tuples import Message

from headwater.app.refused import refuse_members
from headwater.core.header import TARGET
from headwater.core.keys import decode_key
from headwater.stream.frame import CURRENT

if TYPE_CHECKING:
    from headwater.app.owner import AppLike
    from headwater.stream.frame import Frame, Work

_UNSET: Any = object()


class Event(FaustEvent):
    """A record with its place. `timestamp_ms` is its own event time; `message` has faust's names for all this."""

    # faust's Event writes plain attributes in __init__; these read the work's columns instead.
    def __init__(self, app: AppLike, work: Work, index: int, value: Any = _UNSET) -> None:
        """Stand for one entry of `work`; `value` overrides the decoded one (after a `map` step)."""
        self.app = app  # type: ignore[assignment]
        self._work = work
        self._index = index
        self._value = value

    @property
    def key(self) -> Any:  # type: ignore[override]
        """The key, decoded as the topic's key type."""
        data = self._work.keys[self._index]
        topic = self._app.topic_named_or_none(self.topic)
        return decode_key(data, None) if topic is None else topic.decode_key(data)

    @property
    def value(self) -> Any:  # type: ignore[override]
        """The decoded value."""
        return self._work.values[self._index] if self._value is _UNSET else self._value

    @property
    def headers(self) -> dict[str, bytes | None]:  # type: ignore[override]
        """The headers by name; where a name repeats the last one (`message.headers` has all, in order)."""
        return dict(self._work.headers_at(self._index))

    @property
    def topic(self) -> str:
        """The topic the record was read from."""
        return self._work.topics[self._work.input_at(self._index)][0]

    @property
    def partition(self) -> int:
        """The partition the record was read from."""
        return self._work.topics[self._work.input_at(self._index)][1]

    @property
    def offset(self) -> int:
        """The record's offset."""
        return self._work.offsets[self._index]

    @property
    def timestamp_ms(self) -> int:
        """The record's event time, ms since 1970 UTC."""
        return self._work.timestamps[self._index]

    @property
    def timestamp(self) -> float:
        """The record's event time in seconds, as faust has it."""
        return self._work.timestamps[self._index] / 1000

    @property
    def raw_key(self) -> bytes | None:
        """The key's bytes."""
        return self._work.keys[self._index]

    @property
    def raw_value(self) -> bytes | None:
        """The value's bytes."""
        return self._work.raw_values[self._index]

    @property
    def message(self) -> Message:  # type: ignore[override]
        """The record in faust's shape: bytes, and the timestamp in seconds."""
        return Message(
            self.topic,
            self.partition,
            self.offset,
            timestamp=self.timestamp,
            timestamp_type=0,
            headers=list(self._work.headers_at(self._index)),  # type: ignore[arg-type]
            key=self.raw_key,
            value=self.raw_value,
            checksum=None,
        )

    @property
    def _app(self) -> Any:
        return self.app

    async def forward(  # type: ignore[override]
        self,
        channel: Any,
        key: Any = _UNSET,
        value: Any = _UNSET,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = _UNSET,
    ) -> Any:
        """Send the record on to a topic: its bytes, headers and event time, except what is given."""
        topic = self._app.topic_named(channel) if isinstance(channel, str) else channel
        return await topic.send_encoded(
            self.raw_key if key is _UNSET else topic.encode_key(key),
            self.raw_value if value is _UNSET else topic.encode_value(value),
            partition,
            self.timestamp_ms if timestamp is None else timestamp,
            # A redriven record is addressed to this agent; what it sends on is for everyone.
            tuple(header for header in self._work.headers_at(self._index) if header[0] != TARGET)
            if headers is _UNSET
            else headers,
        )

    async def send(  # type: ignore[override]
        self,
        channel: Any,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
    ) -> Any:
        """Send another record to a topic; it is part of the epoch."""
        topic = self._app.topic_named(channel) if isinstance(channel, str) else channel
        return await topic.send(
            key=key, value=value, partition=partition, timestamp=timestamp, headers=headers
        )

    def __repr__(self) -> str:
        return f"<Event: {self.topic}/{self.partition}@{self.offset} k={self.raw_key!r}>"


refuse_members(
    Event,
    methods={
        "ack": "nothing: what an agent has finished is committed with the epoch",
        "__aenter__": "nothing: what an agent has finished is committed with the epoch",
        "__aexit__": "nothing: what an agent has finished is committed with the epoch",
        "_attach": "Event.forward or topic.send, which are part of the epoch",
    },
    properties={"acked": "nothing: what an agent has finished is committed with the epoch"},
)


def event_in_hand(app: AppLike, frame: Frame, value: Any = _UNSET) -> Event | None:
    """Return the event of a frame's row, or None before the first."""
    work = frame.work
    if work is None:
        return None
    at = bisect_left(work.rows, frame.row)
    return Event(app, work, at, value) if at < len(work) and work.rows[at] == frame.row else None


def current_event(app: AppLike) -> Event | None:
    """Return the event that the running agent holds, or None outside agents."""
    frame = CURRENT.get()
    return None if frame is None else event_in_hand(app, frame)
