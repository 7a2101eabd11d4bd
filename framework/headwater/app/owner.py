"""What topics, agents, tables and streams need of their app, and the app of its engine: protocols, no code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater.core.batch import Headers


class TableReader(Protocol):
    """A table's committed rows, as they stand outside agents."""

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the decoded value under a user's key, or `default` where there is no row."""
        ...

    def items(self) -> Iterable[tuple[bytes, Any]]:
        """Yield (key bytes, decoded value) in key-byte order."""
        ...


class EngineLike(Protocol):
    """What an app asks of its engine."""

    def as_of(self, table: Any, time: Any) -> Any:
        """Return a table's rows as they stood at an instant, as a mapping."""
        ...

    def committed(self, table: Any) -> TableReader:
        """Return the committed rows of the tasks this worker owns."""
        ...

    def is_leader(self) -> bool:
        """Tell whether this worker is the one that runs what only one worker may run."""
        ...

    async def wait_ready(self) -> None:
        """Return when the tables of the first tasks are there, or the engine has ended."""
        ...

    async def send_outside(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: int | None,
        headers: Headers,
    ) -> Any:
        """Append one record outside epochs, at least once, and return its metadata."""
        ...


class AppLike(Protocol):
    """What a declaration asks of the app it belongs to."""

    id: str

    @property
    def engine(self) -> Any:
        """The engine, made at first use."""
        ...

    def topic_named(self, name: str) -> Any:
        """Return the topic of a name: the declared one, else an undeclared one for sending."""
        ...

    def stream_of(self, plan: Any, facts: Any) -> Any:
        """Return an unbound stream of a plan."""
        ...

    def hold(self, coroutine: Any) -> Any:
        """Run a coroutine as an asyncio task that the app awaits before it stops."""
        ...


class StreamLike(Protocol):
    """What declarations ask of a stream they go on from."""

    plan: Any

    @property
    def _app(self) -> Any: ...

    @property
    def facts(self) -> Any:
        """What is known of its values and keys."""
        ...

    @property
    def label(self) -> str:
        """What it reads, for people."""
        ...

    def group_by(self, key: Any) -> Any:
        """Return the stream with another key."""
        ...
