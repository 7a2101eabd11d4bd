"""A folder of this machine as an archive's storage: files are made once by link(2). It knows nothing of segments.

Protocol of `put_if_absent`
1. Write a temporary file in the same folder, locked while its writer lives; sync it.
2. Link it to its final name: exactly one of any number of writers wins, and readers see all of the file or none.
3. Unlink the temporary name; sync the folder.
Invariant: a name, once there, has all its bytes; what a dead writer leaves is hidden and collected by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from typing import TYPE_CHECKING, Any

from headwater.archive.storage import ArchiveUnavailableError, no_crash

if TYPE_CHECKING:
    from collections.abc import Callable

TEMPORARY = ".tmp-"


class LocalStore:
    """A folder of this machine, by way of fsspec; the create-once step is done with link(2), not by fsspec.

    fsspec's own `mode="create"` isn't used: on local folders it tests and then writes, or overwrites in silence.
    """

    remote = False

    def __init__(self, filesystem: Any, root: str, *, crash: Callable[[str], None] = no_crash) -> None:
        """Take a local fsspec file system and the folder in it; nothing is made before the first write."""
        self._filesystem = filesystem
        self._root = root.rstrip("/") or "/"
        self.url = f"file://{self._root}"
        self.crash = crash

    def _path(self, name: str) -> str:
        parts = name.split("/")
        # Every name is made by `layout`, which encodes what people choose: only a bug can bring these.
        assert parts[0], name
        assert ".." not in parts, name
        assert "\0" not in name, name
        return f"{self._root}/{name}"

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        """Create a file durably; False where there is one already."""
        path = self._path(name)
        folder, _, final = path.rpartition("/")
        try:
            self._make_folder(folder)
            while True:
                outcome = self._link_new(folder, final, data)
                if outcome is not None:
                    return outcome
        except OSError as error:
            raise ArchiveUnavailableError(
                f"can't write {path}: {error.strerror or error}; nothing was changed; free space or mend the folder, "
                "then run the archiver again"
            ) from error

    def _link_new(self, folder: str, final: str, data: bytes | memoryview) -> bool | None:
        """Write, sync and link; None where the temporary file was collected before it was locked: do it again."""
        temporary = f"{folder}/{TEMPORARY}{uuid.uuid4().hex}~{final}"
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            view = memoryview(data).cast("B")
            half = len(view) // 2
            _write_all(descriptor, view[:half])
            self.crash("archive.half_written")
            _write_all(descriptor, view[half:])
            self.crash("archive.written")
            os.fsync(descriptor)
            self.crash("archive.synced")
            try:
                os.link(temporary, f"{folder}/{final}")
                won = True
            except FileExistsError:
                won = False
            except FileNotFoundError:
                return None
            self.crash("archive.linked")
            os.unlink(temporary)
            self.crash("archive.unlinked")
        except OSError:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        # Also by the loser: it goes on from the winner's end, which must not vanish with the power.
        _sync_folder(folder)
        self.crash("archive.folder_synced")
        return won

    def _make_folder(self, folder: str) -> None:
        missing = []
        at = folder
        while not os.path.isdir(at):
            missing.append(at)
            at = os.path.dirname(at) or "/"
        for path in reversed(missing):
            os.makedirs(path, exist_ok=True)
            _sync_folder(os.path.dirname(path) or "/")

    def get(self, name: str) -> bytes:
        """Return a file's bytes."""
        data: bytes = self._filesystem.cat_file(self._path(name))
        return data

    def get_range(self, name: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of a file."""
        # Not fsspec's cat_file: it opens through three layers, 60 µs a call, felt at one call a row group.
        descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, end - start, start)
            while start + len(data) < end:
                more = os.pread(descriptor, end - start - len(data), start + len(data))
                if not more:
                    break
                data += more
            return data
        finally:
            os.close(descriptor)

    def head(self, name: str) -> int | None:
        """Return a file's size, or None."""
        try:
            size: int = self._filesystem.size(self._path(name))
        except FileNotFoundError:
            return None
        return size

    def list_after(self, folder: str, after: str = "") -> list[str]:
        """Return the names in a folder that sort after `after`."""
        try:
            names = [
                path.rpartition("/")[2] for path in self._filesystem.ls(self._path(folder), detail=False)
            ]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if name > after and not name.startswith("."))

    def delete(self, name: str) -> None:
        """Remove a file."""
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            return
        _sync_folder(self._path(name).rpartition("/")[0])

    def collect(self, folder: str) -> int:
        """Remove what writers that are dead left in a folder, and return how many files; living ones hold a lock."""
        path, removed = self._path(folder), 0
        if not os.path.isdir(path):
            return 0
        for name in os.listdir(path):
            if name.startswith(TEMPORARY) and _remove_unlocked(f"{path}/{name}"):
                removed += 1
        return removed


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_unlocked(path: str) -> bool:
    """Remove a temporary file whose writer is dead (the kernel has let go of its lock)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.ENOENT):
            return False
        raise
    finally:
        os.close(descriptor)
    return True
