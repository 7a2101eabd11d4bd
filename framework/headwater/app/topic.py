"""Topic: the declaration of a topic: its name, types and codecs, and sending to it. Reads nothing: agents do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from faust.topics import Topic as FaustTopic

from headwater.app import sends
from headwater.app.refused import refuse_members
from headwater.app.stream import Stream
from headwater.core.errors import MisuseError
from headwater.core.keys import decode_key, encode_key
from headwater.core.names import refuse_internal
from headwater.core.times import duration_ms
from headwater.core.values import codec_for
from headwater.stream.plan import RECORD_KEY, StreamPlan, key_selector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from headwater.app.owner import AppLike
    from headwater.core.values import Codec

PARTITIONS_MAX = 100_000


def _duration(value: float | timedelta | None, what: str, *, zero: bool = True) -> int | None:
    return None if value is None else duration_ms(value, what, zero=zero)


def _broker_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Topic(FaustTopic):
    """One topic, or several of the same types that are read as one.

    `external`: sends go to the topic itself in every generation, promoted or not. `event_time`: where a record's time is,
    a field or a function of the value. `lateness`: how far out of order records may be. `max_jump`: how far one record may
    push the clock. `idle_after`: after how long a silent input is left out. `keyed_by`: the field that the record key is.
    `hot`: archivers of this app drop records from the log that are archived and older than this (None: nothing is dropped).
    `kafka`: how brokers keep the topic, by Kafka's names; the topic is made so, and one that is there must be so.
    """

    # faust's __init__ compiles decoders and queues of its own engine; none of them is wanted.
    def __init__(
        self,
        app: AppLike,
        *,
        topics: Sequence[str],
        key_type: Any = None,
        value_type: Any = None,
        key_serializer: str | None = None,
        value_serializer: str | None = None,
        partitions: int | None = None,
        external: bool = False,
        event_time: str | Callable[[Any], Any] | None = None,
        lateness: float | timedelta | None = None,
        max_jump: float | timedelta | None = None,
        idle_after: float | timedelta | None = None,
        keyed_by: Any = None,
        hot: float | timedelta | None = None,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        """Check names and types; nothing is made in the log."""
        if not topics:
            raise MisuseError("app.topic() needs a name")
        if len(set(topics)) != len(topics):
            raise MisuseError(f"app.topic({', '.join(map(repr, topics))}) names a topic twice")
        if partitions is not None and (
            isinstance(partitions, bool)
            or not isinstance(partitions, int)
            or not 1 <= partitions <= PARTITIONS_MAX
        ):
            raise MisuseError(
                f"topic {topics[0]!r}: partitions is a whole number from 1; found {partitions!r}"
            )
        if key_serializer not in (None, "raw", "json", "text"):
            raise MisuseError(
                f"topic {topics[0]!r}: key_serializer {key_serializer!r} is not there; keys are encoded by their type, "
                "take key_type=bytes, str, int or a Record"
            )
        self.app = app  # type: ignore[assignment]
        self.topics = [refuse_internal(name, app.id) for name in topics]
        self.key_type = bytes if key_type is None and key_serializer == "raw" else key_type
        self.value_type = value_type
        self.value_serializer = value_serializer
        self.codec: Codec = codec_for(value_type, value_serializer)
        self._partitions = partitions
        self.external = external
        where = f"topic {topics[0]!r}: "
        if event_time is not None and not isinstance(event_time, str) and not callable(event_time):
            raise MisuseError(
                f"{where}event_time is a field's name or a function of the value; found {event_time!r}"
            )
        self.event_time = event_time
        self.lateness_ms = _duration(lateness, f"{where}lateness")
        self.max_jump_ms = _duration(max_jump, f"{where}max_jump", zero=False)
        self.idle_after_ms = _duration(idle_after, f"{where}idle_after", zero=False)
        self.keyed_by = None if keyed_by is None else key_selector(keyed_by)
        self.hot_ms = _duration(hot, f"{where}hot")
        if kafka is not None and not isinstance(kafka, Mapping):
            raise MisuseError(
                f"{where}kafka is a dict of Kafka's own topic settings (retention.ms…); found {kafka!r}"
            )
        self.kafka = {name: _broker_text(value) for name, value in (kafka or {}).items()}
        self.members: tuple[Topic, ...] = (self,)

    @property
    def name(self) -> str:
        """The topic's name. Raises MisuseError where this stands for several."""
        if len(self.topics) != 1:
            raise MisuseError(f"{self} stands for several topics; name one of them for this")
        return self.topics[0]

    def get_topic_name(self) -> str:
        """Return the topic's name, as faust calls it."""
        return self.name

    @property  # type: ignore[misc]
    def partitions(self) -> int | None:
        """The declared number of partitions, or None (the app's number when the topic is made)."""
        return self._partitions

    def signature(self) -> dict[str, Any]:
        """Return what two declarations of one topic must agree on."""
        return {
            "key_type": self.key_type,
            "value_type": self.value_type,
            "value_serializer": self.value_serializer,
            "partitions": self._partitions,
            "external": self.external,
            "event_time": self.event_time,
            "lateness_ms": self.lateness_ms,
            "max_jump_ms": self.max_jump_ms,
            "hot_ms": self.hot_ms,
            "idle_after_ms": self.idle_after_ms,
            "keyed_by": self.keyed_by,
            "kafka": self.kafka,
        }

    # -- reading is declared

    def stream(self, **kwargs: Any) -> Stream:
        """Return an unbound stream of the topic, to be given to an agent."""
        if kwargs:
            raise MisuseError(f"topic.stream() takes no options; found {', '.join(sorted(kwargs))}")
        return Stream(self._app, StreamPlan(tuple(self.topics)))

    def group_by(
        self,
        key: Any = RECORD_KEY,
        *,
        name: str | None = None,
        partitions: int | None = None,
        key_type: Any = None,
    ) -> Stream:
        """Return an unbound stream in which each record goes to its new key's home; without a key its own is taken."""
        return self.stream().group_by(key, name=name, partitions=partitions, key_type=key_type)

    def filter(self, fun: Any) -> Stream:
        """Return an unbound stream of the values the function says yes to."""
        return self.stream().filter(fun)

    # -- keys and values

    def decode_key(self, data: bytes | None) -> Any:
        """Return a key as the topic's key type."""
        return decode_key(data, self.key_type)

    def encode_key(self, key: Any) -> bytes | None:
        """Return a key's bytes."""
        return encode_key(key)

    def encode_value(self, value: Any, serializer: str | None = None) -> bytes | None:
        """Return a value's bytes; None is a tombstone."""
        if value is None:
            return None
        if serializer is None or serializer == self.value_serializer:
            return self.codec.encode(value)
        return codec_for(None, serializer).encode(value)

    # -- sending

    async def send(  # type: ignore[override]
        self,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
        value_serializer: str | None = None,
        **refused: Any,
    ) -> Any:
        """Send a record: part of the epoch inside an agent, appended at once (at least once) outside.

        `timestamp`: ms (int) or seconds (float); None: the event time of the record in hand, outside agents now.
        The result may be awaited for the record's place, outside agents only.
        """
        _refuse_send_options(refused)
        return await sends.send(
            self._app,
            self.name,
            encode_key(key),
            self.encode_value(value, value_serializer),
            self._checked_partition(partition),
            sends.timestamp_ms(timestamp),
            sends.headers_of(headers),
        )

    async def send_encoded(
        self,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
    ) -> Any:
        """Send bytes as they are."""
        return await sends.send(
            self._app,
            self.name,
            key,
            value,
            self._checked_partition(partition),
            sends.timestamp_ms(timestamp),
            sends.headers_of(headers),
        )

    def send_soon(  # type: ignore[override]
        self,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
        value_serializer: str | None = None,
        **refused: Any,
    ) -> Any:
        """Send from plain code; as `send`, but outside agents the record is appended in the background."""
        _refuse_send_options(refused)
        return sends.send_soon(
            self._app,
            self.name,
            encode_key(key),
            self.encode_value(value, value_serializer),
            self._checked_partition(partition),
            sends.timestamp_ms(timestamp),
            sends.headers_of(headers),
        )

    def _checked_partition(self, partition: int | None) -> int | None:
        if partition is None:
            return None
        count = self._partitions
        if (
            isinstance(partition, bool)
            or not isinstance(partition, int)
            or partition < 0
            or (count and partition >= count)
        ):
            expected = f"0 to {count - 1}" if count else "a whole number from 0"
            raise MisuseError(f"topic {self.name!r}: a partition is {expected}; found {partition!r}")
        return partition

    @property
    def loop(self) -> Any:  # type: ignore[override]
        """The app's event loop."""
        return self._app.loop

    @property
    def _app(self) -> Any:
        return self.app

    def __repr__(self) -> str:
        return f"<Topic: {', '.join(self.topics)}>"

    def __str__(self) -> str:
        return ", ".join(self.topics)

    @property
    def label(self) -> str:
        """The topic's name, for people."""
        return f"Topic: {self}"


_REFUSED_SEND = {
    "schema": "declare key_type and value_type on the topic",
    "key_serializer": "keys are encoded by their type; send bytes for raw keys",
    "callback": "await the result outside agents; inside, the epoch commits the record",
    "force": "sends inside an agent are always part of the epoch",
    "eager_partitioning": "give partition=, or leave it to the key",
}


def _refuse_send_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in _REFUSED_SEND:
            raise TypeError(f"send() got an unexpected keyword argument {name!r}")
        if value not in (None, False):
            raise MisuseError(f"send({name}=…) is not there in Headwater; instead: {_REFUSED_SEND[name]}")


_READ = "@app.agent(topic): agents read topics"
_SEND = "topic.send(key=…, value=…)"
_DECODE = "value_type, key_type and value_serializer on the topic; what can't be decoded goes to dead letters"
_KEPT = "app.topic(kafka={'retention.ms': …}) on Kafka; else the log keeps what is not archived"
_INTERNAL = "nothing: internal topics are named and made by the engine"
_DECLARE = "nothing: topics are made when the app starts, or at the first send"

refuse_members(
    Topic,
    methods={
        "put": _SEND,
        "get": _READ,
        "empty": _READ,
        "deliver": _READ,
        "decode": _DECODE,
        "clone": "app.topic(name, …) again",
        "clone_using_queue": _READ,
        "derive": "app.topic(name, …) with the wanted options",
        "derive_topic": "app.topic(name, …) with the wanted options",
        "publish_message": _SEND,
        "as_future_message": _SEND,
        "prepare_headers": _SEND,
        "prepare_key": "topic.encode_key(key)",
        "prepare_value": "topic.encode_value(value)",
        "on_key_decode_error": _DECODE,
        "on_value_decode_error": _DECODE,
        "on_decode_error": _DECODE,
        "maybe_declare": _DECLARE,
        "declare": _DECLARE,
        "on_stop_iteration": _READ,
        "throw": _READ,
        "__aiter__": _READ,
        "__anext__": _READ,
    },
    properties={
        "queue": _READ,
        "pattern": "app.topic('a', 'b') with the names: what a task reads must be known before it starts",
        "subscriber_count": _READ,
        "schema": _DECODE,
        "acks": "nothing: every record is acknowledged by the log",
        "active_partitions": "nothing: tasks own partitions",
        "allow_empty": "nothing: empty and null values are told apart",
        "compacting": _KEPT,
        "config": _KEPT,
        "deleting": _KEPT,
        "replicas": _KEPT,
        "retention": _KEPT,
        "has_prefix": _INTERNAL,
        "internal": _INTERNAL,
        "is_iterator": _READ,
        "key_serializer": "topic.key_type: keys are encoded by their type",
        "maxsize": "buffer_bytes= of the app",
    },
)
