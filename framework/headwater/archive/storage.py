"""Six verbs on files that are created once: what an archive asks of its storage, whatever that is; nothing is done here.

Invariant: a name, once there, has all its bytes and keeps them; of any number of writers of one name exactly one wins.
"""

from __future__ import annotations

from typing import Protocol

from headwater.core.errors import HeadwaterError


class ArchiveUnavailableError(HeadwaterError):
    """The archive's storage can't be read or written now (disk full, no permission, no answer); nothing was half-done.

    `transient`: it may work again by itself (throttled, timed out, unreachable), so an archiver that runs on waits.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


def no_crash(name: str) -> None:
    """Pass a crash point that no test looks at."""


class Store(Protocol):
    """What an archive asks of its storage. Names are relative paths with `/`; hidden names don't count as there."""

    url: str

    remote: bool
    """Whether an answer takes a network's time, so that reading ahead pays and no event loop may wait for it."""

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        """Create a file durably; False where there is one already, which is left as it is.

        False may also mean that an earlier try of this very call created it and its reply was lost: the caller, who
        knows what it wrote, looks at what is there.
        """
        ...

    def get(self, name: str) -> bytes:
        """Return a file's bytes; raises FileNotFoundError."""
        ...

    def get_range(self, name: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of a file, fewer where it ends before; raises FileNotFoundError."""
        ...

    def head(self, name: str) -> int | None:
        """Return a file's size, or None where there is none."""
        ...

    def list_after(self, folder: str, after: str = "") -> list[str]:
        """Return the names in a folder that sort after `after`, sorted, hidden ones left out; none, no error."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; no error where there is none."""
        ...
