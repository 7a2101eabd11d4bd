"""An object store as an archive's storage: six verbs with time-outs, retries and back-off over a client's plain calls.

Protocol of `put_if_absent`
1. One conditional request (multipart: the condition is on its completion) creates the object, or the store refuses it.
2. A reply that says "there is one" is False, by whatever status, code or class the client says it.
3. No reply, a time-out or throttling: the very same bytes are sent again, after a pause, until the patience is over.
   If the first try had been done after all, the second is refused: False, and the caller compares what is there.
Invariant: nothing here looks before it writes, but in single-writer mode, which the archiver asks for by name.
"""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict
from threading import Event, Lock
from typing import TYPE_CHECKING, Protocol, TypeVar

from headwater.archive.storage import ArchiveUnavailableError
from headwater.archive.trouble import Trouble, meaning_of, text_of
from headwater.core.clock import SYSTEM_CLOCK, Clock
from headwater.core.errors import StoreRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""How long one verb goes on trying; an archiver that runs on then waits and begins anew."""
PAUSE_FIRST_S = 0.05
PAUSE_MAX_S = 5.0
SIZES_MAX = 100_000

_T = TypeVar("_T")


class ObjectClient(Protocol):
    """Plain calls to one store below one prefix. Each raises whatever its library raises; `meaning_of` reads that."""

    url: str

    creates_once: bool
    """Whether `create` is known to be one conditional request; where not, only a single writer may use it."""

    def create(self, name: str, data: bytes | memoryview) -> None:
        """Create an object on condition that there is none, atomically."""
        ...

    def replace(self, name: str, data: bytes | memoryview) -> None:
        """Write an object, whether or not there is one."""
        ...

    def read(self, name: str) -> bytes:
        """Return an object's bytes."""
        ...

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes [start, end) of an object, fewer where it ends before."""
        ...

    def size(self, name: str) -> int:
        """Return an object's size, not from any cache."""
        ...

    def names(self, folder: str, after: str) -> list[tuple[str, int | None]]:
        """Return names (of objects and folders) in a folder and sizes where known, not from any cache, in any order.

        Names up to `after` may be left out.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove an object."""
        ...


class ShortReadError(ConnectionError):
    """A reply ended before the bytes asked for, though the object has them."""


class ObjectStore:
    """An object store below a prefix; safe for several threads."""

    remote = True

    def __init__(
        self,
        client: ObjectClient,
        *,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Take a client; nothing is asked of it yet."""
        self._client = client
        self.url = client.url
        self._patience_s = patience_s
        self._sleep = Event().wait if sleep is None else sleep
        self._clock = clock
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._lock = Lock()
        self.single_writer = False
        self.retries = 0

    @property
    def creates_once(self) -> bool:
        """Whether the client's conditional create is known to be one request."""
        return self._client.creates_once

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        """Create an object; False where there is one already, which may be an earlier try of this very call."""
        if self.single_writer:
            return self._put_alone(name, data)

        def create() -> bool:
            try:
                self._client.create(name, data)
            except Exception as error:
                if meaning_of(error) is Trouble.TAKEN:
                    return False
                raise
            with self._lock:
                self._sizes[name] = len(data)
            return True

        return self._patiently("write", name, create)

    def _put_alone(self, name: str, data: bytes | memoryview) -> bool:
        """Look, then write: right only as long as nobody else writes, which whoever asked for this mode vouches for."""
        if self.head(name) is not None:
            return False
        self._patiently("write", name, lambda: self._client.replace(name, data))
        return True

    def get(self, name: str) -> bytes:
        """Return an object's bytes; raises FileNotFoundError."""
        return self._patiently("read", name, lambda: self._client.read(name))

    def get_range(self, name: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of an object, fewer where it ends before; raises FileNotFoundError."""
        if end <= start:
            return b""

        def read() -> bytes:
            data = self._client.read_range(name, start, end)
            if len(data) < end - start:
                # Cut off on its way, or the object is that short: its size, asked anew, tells which.
                there = self._client.size(name)
                if len(data) < min(end, there) - start:
                    raise ShortReadError(
                        f"{len(data)} bytes came of [{start}, {end}), the object has {there}"
                    )
            return data[: end - start]

        return self._patiently("read", name, read)

    def head(self, name: str) -> int | None:
        """Return an object's size, or None. Objects never change, so a size that a listing told is not asked again."""
        with self._lock:
            known = self._sizes.get(name)
        if known is not None:
            return known
        try:
            return self._patiently("look up", name, lambda: self._client.size(name))
        except FileNotFoundError:
            return None

    def list_after(self, folder: str, after: str = "") -> list[str]:
        """Return the names in a folder that sort after `after`, sorted, hidden ones left out."""

        def names() -> list[tuple[str, int | None]]:
            try:
                return self._client.names(folder, after)
            except Exception as error:
                if meaning_of(error) is Trouble.ABSENT:
                    return []
                raise

        found = [
            (name, size)
            for name, size in self._patiently("list", folder, names)
            if name > after and not name.startswith(".")
        ]
        with self._lock:
            for name, size in found:
                if size is not None:
                    self._sizes[f"{folder}/{name}"] = size
            while len(self._sizes) > SIZES_MAX:
                self._sizes.popitem(last=False)
        return sorted({name for name, _ in found})

    def delete(self, name: str) -> None:
        """Remove an object; no error where there is none."""
        with self._lock:
            self._sizes.pop(name, None)
        try:
            self._patiently("remove", name, lambda: self._client.remove(name))
        except FileNotFoundError:
            return

    def _patiently(self, deed: str, name: str, call: Callable[[], _T]) -> _T:
        """Call until there is an answer; raises FileNotFoundError, or ArchiveUnavailableError where there is none."""
        deadline = self._clock.monotonic_s() + self._patience_s
        pause, tries = PAUSE_FIRST_S, 0
        while True:
            tries += 1
            try:
                return call()
            except Exception as error:
                trouble = meaning_of(error)
                if trouble is Trouble.ABSENT:
                    raise FileNotFoundError(f"{self.url}/{name}") from error
                if trouble is not Trouble.TRANSIENT:
                    raise self._unavailable(deed, name, error) from error
                if self._clock.monotonic_s() + pause > deadline:
                    raise ArchiveUnavailableError(
                        f"can't {deed} {self.url}/{name}: {text_of(error)}; tried {tries} times in "
                        f"{self._patience_s:.0f} s; nothing was half-done; look at the store, it may be throttling or unreachable",
                        transient=True,
                    ) from error
                log.debug("tries again", extra={"deed": deed, "file": name, "error": text_of(error)})
                self.retries += 1
                # Spread, so that clients that failed together don't come back together: Exponential Backoff And Jitter,
                # AWS Architecture Blog, 2015. No result hangs on it.
                self._sleep(pause * (0.5 + uuid.uuid4().bytes[0] / 512))
                pause = min(pause * 2, PAUSE_MAX_S)

    def _unavailable(self, deed: str, name: str, error: Exception) -> Exception:
        """Return the error for what no retry mends; a bug's own error is passed as it is."""
        if isinstance(error, (AssertionError, AttributeError, NameError, StoreRefusedError, TypeError)):
            return error
        if isinstance(error, NotImplementedError):  # fsspec's, of what a file system can't do
            return StoreRefusedError(
                f"the storage at {self.url} can't {deed}: {text_of(error)}; use another storage"
            )
        return ArchiveUnavailableError(
            f"can't {deed} {self.url}/{name}: {text_of(error)}; nothing was changed; check the bucket's name, its region, "
            "the credentials in the environment and what they permit (docs/operate.md, object stores)"
        )
