"""Derived topic: stands for an operator's results, its late records or a table's changes where a topic is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from headwater.app.topic import Topic
from headwater.core.errors import MisuseError

if TYPE_CHECKING:
    from headwater.app.owner import AppLike

BEGIN = "@"
"""Begins the names of derived topics in plans; no topic of a log can be named so."""


class DerivedTopic(Topic):
    """What `@out:NAME`, `@late:NAME` and `@changes:TABLE` name. It is read, and only the engine writes it."""

    def __init__(self, app: AppLike, name: str) -> None:
        """Take the name as plans have it."""
        super().__init__(app, topics=["derived"])
        self.topics = [name]

    async def send(self, **_: Any) -> NoReturn:
        """Raise MisuseError."""
        self._refuse()

    async def send_encoded(self, *_: Any) -> NoReturn:
        """Raise MisuseError."""
        self._refuse()

    def send_soon(self, **_: Any) -> NoReturn:
        """Raise MisuseError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise MisuseError(
            f"{self.topics[0]} is what the app itself derives, nothing can be sent to it; send to a topic that it comes from"
        )
