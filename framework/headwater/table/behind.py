"""Write-behind: the changes of an epoch that is being committed, and those of committed ones, which are written together.

A busy table's epochs change much the same keys, and RocksDB takes many times as long for a row as a dict does. What waits
here is in the changelog, so that a process that is killed loses nothing: the store's offset says from where on to recover.

Protocol
1. `stage` takes what an epoch has changed, when it is collected: the next epoch reads it.
2. `commit` says that the log has taken it, and up to which offset of the changelog.

Invariants
- Reads see what is staged and what waits as if it were written; `committed` doesn't see what is staged.
- Nothing that is staged reaches the store (I7); changes and the offset they reach go there together.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import HeadwaterError
from headwater.table.store import refuse_backwards

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from headwater.core.clock import Clock
    from headwater.table.store import StateStore

log_ = logging.getLogger(__name__)

DELAY_S = 1.0
"""How old what waits may be when it is looked at: with each epoch, and by the session now and then."""

CHANGES_MAX = 10_000
BYTES_MAX = 1 << 20
"""How much may wait: it is memory, and one write of it holds up the next epoch."""


class WriteBehind:
    """A store and the newest changes of its rows. For one writer; other threads may read."""

    def __init__(self, store: StateStore, clock: Clock = SYSTEM_CLOCK) -> None:
        """Begin with nothing waiting; `store` is written through this object alone once it has taken a change."""
        self._store = store
        self._clock = clock
        self._staged: Mapping[bytes, bytes | None] = {}
        self._changes: dict[bytes, bytes | None] = {}
        self._reached: int | None = None
        self._nbytes = 0
        self._since_s = 0.0

    @property
    def changelog_offset(self) -> int:
        """The next changelog offset: the committed rows are the fold of all changes before it."""
        return self._store.changelog_offset if self._reached is None else self._reached

    def get(self, key: bytes) -> bytes | None:
        """Return a row's value bytes, or None where there is no row."""
        staged = self._staged
        return staged[key] if key in staged else self.get_committed(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield rows in key order, as they are at the time of this call."""
        return overlaid(self._staged, self.committed())

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows whose key begins with `prefix`, from key `start` on, in key order."""
        committed = overlaid(self._changes, self._store.scan(prefix, start), prefix, start)
        return overlaid(self._staged, committed, prefix, start)

    def get_committed(self, key: bytes) -> bytes | None:
        """Do as `get`, without what is staged."""
        changes = self._changes
        return changes[key] if key in changes else self._store.get(key)

    def committed(self) -> Iterator[tuple[bytes, bytes]]:
        """Do as `items`, without what is staged."""
        return overlaid(self._changes, self._store.items())

    def stage(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Take the changes of the epoch that is committed next; there is one at a time. Raises HeadwaterError for a second."""
        if self._staged:
            raise HeadwaterError(
                f"the store of table {self._store.name} is given an epoch's changes, but was not told that the log has the last "
                "one's; start the worker again: it begins from what the log has"
            )
        self._staged = changes

    def commit(self, changelog_offset: int) -> None:
        """Take what is staged for committed, and write all that waits once it is much or old."""
        refuse_backwards(self._store.name, self.changelog_offset, changelog_offset)
        if self._reached is None:
            self._since_s = self._clock.monotonic_s()
        self._changes.update(self._staged)
        self._reached = changelog_offset
        self._nbytes += sum(map(len, self._staged)) + sum(map(len, filter(None, self._staged.values())))
        self._staged = {}
        if len(self._changes) >= CHANGES_MAX or self._nbytes >= BYTES_MAX:
            self.flush()
        else:
            self.flush_if_old()

    def flush_if_old(self) -> None:
        """Write what was committed, where it has waited for long."""
        if self._reached is not None and self._clock.monotonic_s() - self._since_s >= DELAY_S:
            self.flush()

    def flush(self) -> None:
        """Write what was committed."""
        if self._reached is None:
            return
        self._store.write(self._changes, self._reached)
        # Another dict: a reader in another thread finds each change there or in the store.
        self._changes, self._reached, self._nbytes = {}, None, 0

    def close(self) -> None:
        """Write what was committed, drop what is staged, and let go of the store."""
        try:
            self.flush()
        except HeadwaterError as error:
            log_.warning("%s; what was to be written is read from the changelog at the next start", error)
        finally:
            self._store.close()


def overlaid(
    changes: Mapping[bytes, bytes | None],
    rows: Iterable[tuple[bytes, bytes]],
    prefix: bytes = b"",
    start: bytes = b"",
) -> Iterator[tuple[bytes, bytes]]:
    """Return rows, which come in key order, with changes over them (None: deleted), in key order.

    Of the changes those whose key begins with `prefix`, from key `start` on, as they are at the time of this call.
    """
    waiting = sorted(
        (row for row in list(changes.items()) if row[0].startswith(prefix) and row[0] >= start), reverse=True
    )
    return _merged(waiting, rows) if waiting else iter(rows)


def _merged(
    waiting: list[tuple[bytes, bytes | None]], rows: Iterable[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes]]:
    """Yield rows with changes, greatest key first, over them."""
    for key, data in rows:
        while waiting and waiting[-1][0] < key:
            other, change = waiting.pop()
            if change is not None:
                yield other, change
        if waiting and waiting[-1][0] == key:
            change = waiting.pop()[1]
            if change is not None:
                yield key, change
        else:
            yield key, data
    for other, change in reversed(waiting):
        if change is not None:
            yield other, change
