"""Tally: how many records this worker has given to dead letters and to late streams, told in its log: neither grows unseen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.header import MARK
from headwater.core.names import parse_internal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater.core.batch import Append
    from headwater.core.clock import Clock

log_ = logging.getLogger(__name__)

TELL_S = 10.0
"""How long what is counted waits to be told together, once something was told."""


class Tally:
    """Counts what committed epochs have appended to an app's topics of dead letters and late records."""

    def __init__(self, app: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """Begin at nothing."""
        self.total: dict[str, int] = {}
        """Records by topic, of all epochs so far."""
        self._app = app
        self._clock = clock
        self._untold: dict[str, int] = {}
        self._told_s = float("-inf")

    def add(self, appends: Iterable[Append]) -> None:
        """Count a committed epoch's appends; the first are told at once, later ones every 10 s."""
        for append in appends:
            name = parse_internal(append.topic, self._app)
            if name is None or name.kind not in ("dead", "late") or _is_mark(append):
                continue
            for counts in (self.total, self._untold):
                counts[append.topic] = counts.get(append.topic, 0) + len(append)
        if self._untold and self._clock.monotonic_s() >= self._told_s + TELL_S:
            self.tell()

    def tell(self) -> None:
        """Tell what has not been told yet."""
        for topic, count in self._untold.items():
            name = parse_internal(topic, self._app)
            if name is not None and name.kind == "dead":
                what, how = "dead letters", "headwater dead ls"
            else:
                what, how = "late records", f"headwater read {topic}"
            log_.warning(
                "%d %s more in %s, %d since the start; `%s` shows them",
                count,
                what,
                topic,
                self.total[topic],
                how,
            )
        self._untold.clear()
        self._told_s = self._clock.monotonic_s()


def _is_mark(append: Append) -> bool:
    """Tell whether an append is a mark: what the engine says to those who read late records, no record itself."""
    headers = append.headers
    return bool(headers and headers[0]) and headers[0][0][0] == MARK  # type: ignore[index]
