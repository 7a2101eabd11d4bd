"""Sends: staged in the open epoch inside an agent, appended at once (at least once) outside. Encodes nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

from headwater.core.errors import AgentStoppedError, MisuseError, ValueRefusedError
from headwater.stream.frame import CURRENT, Send

if TYPE_CHECKING:
    from collections.abc import Generator

    from headwater.app.owner import AppLike
    from headwater.core.batch import Headers

TIMESTAMP_MAX = 2**63 - 1


class Staged:
    """A send that waits for its epoch to commit. Awaiting it raises: its offset is not known before."""

    __slots__ = ("topic",)

    def __init__(self, topic: str) -> None:
        """Note the topic, for the message."""
        self.topic = topic

    def __await__(self) -> Generator[Any, None, NoReturn]:
        raise AgentStoppedError(
            f"a send to {self.topic!r} can't be awaited inside an agent: the record's place is known only when the "
            "epoch commits, and the epoch commits only when the agent goes on; drop the second `await`, or use `cast`"
        )
        yield  # makes this a generator, as __await__ must be


class Appended:
    """A send that was appended. Awaiting it gives the record's metadata at once."""

    __slots__ = ("metadata",)

    def __init__(self, metadata: Any) -> None:
        """Keep what the log said."""
        self.metadata = metadata

    def __await__(self) -> Generator[Any, None, Any]:
        return self.metadata
        yield  # makes this a generator, as __await__ must be


def stage(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    partition: int | None,
    timestamp: int | None,
    headers: Headers,
) -> Staged | None:
    """Add a send to the open epoch and return a handle, or None outside agents. Raises ValueRefusedError if too large."""
    frame = CURRENT.get()
    if frame is None:
        return None
    size = len(key or b"") + len(value or b"")
    if size > frame.message_bytes_max:
        raise ValueRefusedError(
            f"a record for topic {topic!r} has {size:,} bytes, more than message_bytes_max={frame.message_bytes_max:,}; "
            "send less, or raise the limit in App(message_bytes_max=…)"
        )
    frame.stage(Send(frame.row, topic, partition, timestamp, key, value, headers))
    return Staged(topic)


async def send(
    app: AppLike,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    partition: int | None,
    timestamp: int | None,
    headers: Headers,
) -> Any:
    """Stage inside an agent; outside, append and return when the log has the record."""
    staged = stage(topic, key, value, partition, timestamp, headers)
    if staged is not None:
        return staged
    return Appended(await app.engine.send_outside(topic, key, value, partition, timestamp, headers))


def send_soon(
    app: AppLike,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    partition: int | None,
    timestamp: int | None,
    headers: Headers,
) -> Any:
    """Stage inside an agent; outside, append in an asyncio task that the app owns."""
    staged = stage(topic, key, value, partition, timestamp, headers)
    if staged is not None:
        return staged
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise MisuseError(
            f"send_soon to {topic!r} needs a running event loop; use `await topic.send(…)` in a coroutine"
        ) from None
    return app.hold(app.engine.send_outside(topic, key, value, partition, timestamp, headers))


def timestamp_ms(timestamp: float | None) -> int | None:
    """Return ms: an int is ms, a float is seconds as in faust. Raises MisuseError for what is neither."""
    if timestamp is None:
        return None
    if isinstance(timestamp, bool) or not isinstance(timestamp, (int, float)) or timestamp != timestamp:
        raise MisuseError(f"a timestamp is ms (int) or seconds (float) since 1970 UTC; found {timestamp!r}")
    ms = round(timestamp * 1000) if isinstance(timestamp, float) and abs(timestamp) < 1e18 else timestamp
    if not isinstance(ms, int) or not -TIMESTAMP_MAX - 1 <= ms <= TIMESTAMP_MAX:
        raise MisuseError(f"timestamp {timestamp!r} does not fit 64-bit milliseconds since 1970 UTC")
    return ms


def headers_of(headers: Any) -> Headers:
    """Return headers as the log takes them: from a mapping or pairs; text values become UTF-8."""
    if not headers:
        return ()
    pairs = headers.items() if hasattr(headers, "items") else headers
    found: list[tuple[str, bytes | None]] = []
    for name, value in pairs:
        if not isinstance(name, str) or not (value is None or isinstance(value, (str, bytes))):
            raise MisuseError(
                f"a header is a name (text) and a value (bytes, text or None); found {name!r}: {value!r}"
            )
        found.append((name, value.encode() if isinstance(value, str) else value))
    return tuple(found)
