"""FolderWatch: hears of commits by any process through the system's file events; it is no lock and reads no data.

What is heard is the mark that every committer leaves once its commit can be seen: it sets the times of the write-ahead
log's file. The writes to that file would come too early: SQLite writes, waits for the disk, and only then shows the
commit, through shared memory, which makes no event; who looked at the write would find nothing and be told no more.

Nothing here opens the database or its `-shm` file: closing either would drop the locks SQLite holds on it for this
process. On Linux the folder is watched by its path, so a write-ahead log that is made anew is heard too; on macOS the
write-ahead log itself is held open (SQLite locks nothing there), and the folder to hear of a new one.
"""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING

from headwater.log.interface import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

IN_ATTRIB = 0x4
IN_ONLYDIR = 0x01000000
_READ_BYTES = 16 << 10


def mark_commit(path: str) -> None:
    """Tell the watches of the database at `path` that a commit can be seen now."""
    try:
        os.utime(f"{path}-wal")
    except OSError:
        # The commit stands, whatever becomes of the mark: who waits looks by itself now and then.
        return


def watch_folder(path: str) -> Watch | None:
    """Return a watch of the database at `path`, or None where this system gives none."""
    try:
        if sys.platform == "linux":
            return InotifyWatch(os.path.dirname(path))
        elif hasattr(select, "kqueue"):
            return KqueueWatch(path)
    except OSError:
        # No watches are left to this user, a sandbox forbids them, or the folder is gone: who waits polls.
        return None
    return None


class InotifyWatch(Watch):
    """Linux: one inotify watch on the folder."""

    def __init__(self, folder: str) -> None:
        """Begin to listen. Raises OSError where that can't be had."""
        import ctypes  # here, because every command opens a log and few of them wait

        library = ctypes.CDLL(None, use_errno=True)
        try:
            begin: Callable[[int], int] = library.inotify_init1
            add: Callable[[int, bytes, int], int] = library.inotify_add_watch
        except AttributeError as error:
            raise OSError(f"this C library knows no inotify: {error}") from error
        self._handle: int = begin(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        if add(self._handle, os.fsencode(folder), IN_ATTRIB | IN_ONLYDIR) < 0:
            error_number = ctypes.get_errno()
            self.close()
            raise OSError(error_number, "inotify_add_watch failed", folder)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._handle

    def drain(self) -> None:
        """Take what was heard so far."""
        try:
            while len(os.read(self._handle, _READ_BYTES)) > _READ_BYTES // 2:
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


if sys.platform != "linux":

    class KqueueWatch(Watch):
        """macOS and the BSDs: a kqueue on the write-ahead log and its folder."""

        def __init__(self, path: str) -> None:
            """Begin to listen. Raises OSError where that can't be had."""
            self._path = f"{path}-wal"
            self._flags = getattr(os, "O_EVTONLY", os.O_RDONLY) | os.O_CLOEXEC
            self._file = -1
            self._queue = select.kqueue()
            try:
                self._folder = os.open(os.path.dirname(path), self._flags)
            except OSError:
                self._queue.close()
                raise
            self._follow(self._folder, select.KQ_NOTE_WRITE)
            self._reopen()

        def fileno(self) -> int:
            """Return the descriptor to wait for."""
            return self._queue.fileno()

        def drain(self) -> None:
            """Take what was heard so far, and follow the write-ahead log where it was made anew."""
            heard = self._queue.control(None, 16, 0)
            if any(event.ident == self._folder or event.fflags & select.KQ_NOTE_DELETE for event in heard):
                self._reopen()

        def close(self) -> None:
            """Stop listening. Idempotent."""
            if not self._queue.closed:
                self._queue.close()
                os.close(self._folder)
                if self._file >= 0:
                    os.close(self._file)

        def _reopen(self) -> None:
            try:
                there = os.stat(self._path)
                if self._file >= 0:
                    if os.path.samestat(there, os.fstat(self._file)):
                        return
                    os.close(self._file)
                    self._file = -1
                self._file = os.open(self._path, self._flags)
            except FileNotFoundError:
                return  # between two write-ahead logs; the folder tells of the next
            self._follow(self._file, select.KQ_NOTE_ATTRIB | select.KQ_NOTE_DELETE)

        def _follow(self, handle: int, notes: int) -> None:
            event = select.kevent(
                handle, select.KQ_FILTER_VNODE, select.KQ_EV_ADD | select.KQ_EV_CLEAR, fflags=notes
            )
            self._queue.control([event], 0, 0)
