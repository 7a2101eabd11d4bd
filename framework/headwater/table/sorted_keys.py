"""SortedKeys: a set of keys in order, for prefix scans between writes. Adding and finding cost about the root of its size."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CHUNK = 512
"""Keys lie in sorted lists of at most twice as many."""


class SortedKeys:
    """Keys in order."""

    __slots__ = ("_chunks", "_firsts")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        """Take keys in any order."""
        ordered = sorted(set(keys))
        self._chunks = [ordered[at : at + CHUNK] for at in range(0, len(ordered), CHUNK)]
        self._firsts = [chunk[0] for chunk in self._chunks]

    def add(self, key: bytes) -> None:
        """Add a key; nothing happens where it is there."""
        if not self._chunks:
            self._chunks, self._firsts = [[key]], [key]
            return
        at = max(0, bisect_right(self._firsts, key) - 1)
        chunk = self._chunks[at]
        found = bisect_left(chunk, key)
        if found < len(chunk) and chunk[found] == key:
            return
        insort(chunk, key)
        self._firsts[at] = chunk[0]
        if len(chunk) > 2 * CHUNK:
            half = chunk[CHUNK:]
            del chunk[CHUNK:]
            self._chunks.insert(at + 1, half)
            self._firsts.insert(at + 1, half[0])

    def discard(self, key: bytes) -> None:
        """Remove a key; nothing happens where it isn't there."""
        at = bisect_right(self._firsts, key) - 1
        if at < 0:
            return
        chunk = self._chunks[at]
        found = bisect_left(chunk, key)
        if found == len(chunk) or chunk[found] != key:
            return
        del chunk[found]
        if chunk:
            self._firsts[at] = chunk[0]
        else:
            del self._chunks[at], self._firsts[at]

    def with_prefix(self, prefix: bytes, start: bytes = b"") -> list[bytes]:
        """Return the keys that begin with `prefix`, from `start` on, in order."""
        found: list[bytes] = []
        first = max(prefix, start)
        at = max(0, bisect_right(self._firsts, first) - 1)
        for number in range(at, len(self._chunks)):
            chunk = self._chunks[number]
            low = bisect_left(chunk, first)
            if low == len(chunk):
                continue
            if chunk[-1].startswith(prefix):
                found += chunk[low:] if low else chunk
                continue
            for key in chunk[low:]:
                if not key.startswith(prefix):
                    return found
                found.append(key)
        return found
