"""SortedKeys: a set of keys in order, for prefix scans between writes. Adding and finding cost about the root of its size."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CHUNK = 512
"""Keys lie in sorted lists of at most twice as many."""

LOOK = 8
"""So many keys are copied at first by who goes through them: most look at one or two."""


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

    def with_prefix(self, prefix: bytes, start: bytes = b"") -> Iterator[bytes]:
        """Yield the keys that begin with `prefix`, from `start` on, in order; costs what is taken of them.

        Keys may be added and discarded meanwhile: those behind the last one are as they are when it comes to them.
        """
        first = max(prefix, start)
        return _walk(
            prefix,
            lambda last, size: self._from(first if last is None else last, size, skip=last is not None),
        )

    def back_from(self, prefix: bytes, end: bytes) -> Iterator[bytes]:
        """Yield the keys that begin with `prefix` and come before `end`, the last one first."""
        return _walk(prefix, lambda last, size: self._before(end if last is None else last, size))

    def _from(self, low: bytes, size: int, *, skip: bool) -> list[bytes]:
        """Return some keys from `low` on (`skip`: behind it), all of one chunk."""
        at = max(0, bisect_right(self._firsts, low) - 1)
        find = bisect_right if skip else bisect_left
        for chunk in self._chunks[at : at + 2]:
            here = find(chunk, low)
            if here < len(chunk):
                return chunk[here : here + size]
        return []

    def _before(self, end: bytes, size: int) -> list[bytes]:
        """Return some keys before `end`, the last one first, all of one chunk."""
        at = bisect_left(self._firsts, end) - 1
        if at < 0:
            return []
        chunk = self._chunks[at]
        here = bisect_left(chunk, end)
        return chunk[max(0, here - size) : here][::-1]


def _walk(prefix: bytes, look: Callable[[bytes | None, int], list[bytes]]) -> Iterator[bytes]:
    """Yield keys as long as they begin with `prefix`; `look` gives some more behind the last one, more of them each time."""
    last, size = None, LOOK
    while some := look(last, size):
        for key in some:
            if not key.startswith(prefix):
                return
            yield key
        last, size = some[-1], min(4 * size, CHUNK)
