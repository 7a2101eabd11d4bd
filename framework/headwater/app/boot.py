"""BootStrategy: which services start with an app: sensors, the web server if asked for, the engine. Nothing of Kafka's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from faust.app.base import BootStrategy as FaustBootStrategy

from headwater.app.refused import refuse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mode import ServiceT


class BootStrategy(FaustBootStrategy):
    """Starts the engine in place of faust's producer, consumer, agents, conductor and tables."""

    enable_kafka = False

    def server(self) -> Iterable[ServiceT]:
        """Return the services of a worker, in the order they start."""
        return self._chain(self.sensors(), self.web_server(), self.engine())

    def client_only(self) -> Iterable[ServiceT]:
        """Refuse: there is no client to start."""
        refuse("App", "client_only", "nothing: topic.send works without a running app")

    def producer_only(self) -> Iterable[ServiceT]:
        """Return the services of an app that only sends: none but the web server, for sends open the log themselves."""
        return self.web_server()

    def engine(self) -> Iterable[ServiceT]:
        """Return the engine."""
        return [cast(Any, self.app).engine]

    # What faust's other lists would start is not there.
    def kafka_producer(self) -> Iterable[ServiceT]:
        """Return nothing."""
        return []

    def kafka_consumer(self) -> Iterable[ServiceT]:
        """Return nothing."""
        return []

    def kafka_client_consumer(self) -> Iterable[ServiceT]:
        """Return nothing."""
        return []

    def kafka_conductor(self) -> Iterable[ServiceT]:
        """Return nothing."""
        return []

    def agents(self) -> Iterable[ServiceT]:
        """Return nothing: the engine runs agents."""
        return []

    def tables(self) -> Iterable[ServiceT]:
        """Return nothing: the engine opens tables."""
        return []
