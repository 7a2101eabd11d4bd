"""The hot tier: a partitioned, durable log behind one interface. `open_log` is the way in; clients load only when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.core.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.log.interface import Log


def open_log(url: str, kafka: Mapping[str, str] | None = None) -> Log:
    """Open the log at `memory://NAME` (shared within the process by name), `file://DIR` (made where there is none) or
    `kafka://HOST:PORT[,HOST:PORT]`; `kafka` are librdkafka's settings, for that alone.

    Raises MisuseError for any other URL, LogUnavailableError where the place can't hold a log or no broker answers.
    """
    scheme, separator, place = url.partition("://")
    if separator and scheme == "memory":
        from headwater.log.memory import MemoryLog

        return MemoryLog(place)
    if separator and scheme == "file" and place:
        from headwater.log.embedded import EmbeddedLog

        return EmbeddedLog(place)
    if separator and scheme == "kafka":
        try:
            from headwater.log.kafka import KafkaLog
        except ModuleNotFoundError as error:
            if error.name != "confluent_kafka":
                raise
            raise MisuseError(
                "a kafka:// log needs the package confluent-kafka: pip install 'headwater[kafka]'"
            ) from error
        return KafkaLog(url, kafka)
    raise MisuseError(
        f"can't open the log {url!r}: write file://DIR (a folder on this machine), kafka://HOST:PORT or memory://NAME"
    )
