"""State slots: each worker process has a folder of its own below the generation's, held by a file lock while it lives."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

from headwater.core.errors import HeadwaterError

SLOTS_MAX = 1024


class Slot:
    """A claimed folder `state/<app>/<generation>/w<N>`; never shared, because a stopped process keeps its stores' locks."""

    def __init__(self, state: str, app: str, generation: str) -> None:
        """Claim the first free one. Raises HeadwaterError where the folder can't be made."""
        self.url = state
        self.id = secrets.token_hex(8)
        """Names this very folder, on whatever machine: the same at every start, as long as the folder is there."""
        self.number = 0
        """Which of the folder's processes this is: the lowest that was free."""
        self._file: int | None = None
        if state.startswith("memory://"):
            return
        parent = Path(state.removeprefix("file://")) / app / generation
        try:
            for number in range(SLOTS_MAX):
                folder = parent / f"w{number}"
                folder.mkdir(parents=True, exist_ok=True)
                handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(handle)
                    continue
                self._file, self.url, self.number = handle, str(folder), number
                self.id = self._kept_id(handle)
                return
        except OSError as error:
            raise HeadwaterError(
                f"can't make a state folder in {parent}: {error.strerror or error}; choose another with --state"
            ) from error
        raise HeadwaterError(
            f"all {SLOTS_MAX} state folders in {parent} are in use; choose another with --state"
        )

    def _kept_id(self, handle: int) -> str:
        """Return the id in the lock's file, written at the first start: it goes where the folder goes."""
        kept = os.pread(handle, 64, 0).decode("ascii", "replace").strip()
        if len(kept) == len(self.id) and kept.isalnum():
            return kept
        os.ftruncate(handle, 0)
        os.pwrite(handle, self.id.encode(), 0)
        os.fsync(handle)
        return self.id

    def close(self) -> None:
        """Give the folder up."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
