"""An archive of one log: the chain of segments of each partition, read from any offset; listing and footers are the truth.

Invariants: the segments of a partition tile [0, end) (I13): each begins where the one before ends, the first at 0. A
range that the log had lost before it could be archived is a gap segment: it has no records and names its cause (I16).
"""

from __future__ import annotations

from bisect import bisect_right
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from headwater.archive import layout
from headwater.archive.ahead import AHEAD_BYTES_MAX, ONE, READERS_AHEAD_MAX, THREADS, Step, decode, read_ahead
from headwater.archive.meta import read_meta
from headwater.archive.reader import Facts, Footers, SegmentReader
from headwater.archive.segment import Footer, Place
from headwater.archive.verify import Finding, verify_meta, verify_partition
from headwater.core.batch import Batch
from headwater.core.errors import HandoverGapError, SegmentCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from headwater.archive.storage import Store

ROWS_MAX = 65_536

_T = TypeVar("_T")


class HasTopicId(Protocol):
    """What `bind` reads of the log's TopicInfo."""

    @property
    def topic_id(self) -> str:
        """The topic's id."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment as `archive ls` shows it. Times are None where it has no records; `gap` is the cause of a gap."""

    topic: str
    partition: int
    base: int
    next: int
    count: int
    min_time: int | None
    max_time: int | None
    bytes: int
    path: str
    gap: str | None


class _Chain(NamedTuple):
    """What was last seen of a partition's chain; replaced, never changed."""

    folder: str
    bases: list[int]


class Archive:
    """The archive of one log at one place, for several threads at a time, and safe beside any number of writers.

    What it has seen of a partition's chain it keeps: segments never change and are only added, so a listing begins after
    the last one known, and times are looked up in what is known first.
    """

    def __init__(self, store: Store, log_id: str) -> None:
        """Open; nothing is read or written yet."""
        self.store = store
        self.log_id = log_id
        self._footers = Footers(store)
        self._bound: dict[str, str] = {}
        self._newest: dict[str, str] = {}
        self._chains: dict[Place, _Chain] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._readers_ahead = 0
        self._lock = Lock()

    def bind(self, topics: Mapping[str, HasTopicId]) -> None:
        """Say which topics the log has now, so that one deleted and made again isn't taken for its forerunner."""
        self._bound.update((name, info.topic_id) for name, info in topics.items())

    def close(self) -> None:
        """Let go of what is kept, and of the threads that read ahead. Idempotent."""
        self._footers.forget()
        with self._lock:
            self._chains.clear()
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)

    @property
    def is_remote(self) -> bool:
        """Whether reading takes a network's time, so that no event loop may wait for it."""
        return self.store.remote

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        """Run a call that reads the archive in a thread of the archive's own."""
        return self._threads("readers").submit(call)

    def _threads(self, of: str = "row groups") -> ThreadPoolExecutor:
        # Readers have threads apart: they wait for row groups, which would wait for a thread behind them for ever.
        with self._lock:
            pool = self._pools.get(of)
            if pool is None:
                pool = self._pools[of] = ThreadPoolExecutor(THREADS, thread_name_prefix="headwater-archive")
            return pool

    def topics(self) -> list[str]:
        """Return the names of all topics that have a folder."""
        return sorted({topic for topic, _ in self._topic_folders()})

    def _topic_folders(self) -> list[tuple[str, str]]:
        names = self.store.list_after(layout.log_folder(self.log_id))
        return [parsed for parsed in map(layout.parse_topic, names) if parsed is not None]

    def topic_id(self, topic: str) -> str | None:
        """Return the id of the topic as bound, else of the one of that name that was archived last; None: never was."""
        bound = self._bound.get(topic) or self._newest.get(topic)
        if bound is not None:
            return bound
        ids = [topic_id for name, topic_id in self._topic_folders() if name == topic]
        if not ids:
            return None
        self._newest[topic] = max(ids, key=lambda topic_id: (self._created(topic, topic_id), topic_id))
        return self._newest[topic]

    def _created(self, topic: str, topic_id: str) -> int:
        meta = read_meta(self.store, layout.topic_folder(self.log_id, topic, topic_id))
        return int(str(meta["created"])) if meta else -1

    def place(self, topic: str, partition: int) -> Place | None:
        """Return what segments of a partition have to say about where they belong."""
        topic_id = self.topic_id(topic)
        return None if topic_id is None else Place(self.log_id, topic, topic_id, partition)

    def folder(self, place: Place) -> str:
        """Return the folder of a partition's segments."""
        return layout.partition_folder(
            layout.topic_folder(place.log_id, place.topic, place.topic_id), place.partition
        )

    def partitions(self, topic: str) -> list[int]:
        """Return the partitions that have a folder."""
        topic_id = self.topic_id(topic)
        if topic_id is None:
            return []
        names = self.store.list_after(layout.topic_folder(self.log_id, topic, topic_id))
        return sorted(number for number in map(layout.parse_partition, names) if number is not None)

    def chain(self, place: Place) -> tuple[str, list[int]]:
        """Return a partition's folder and the bases of its segments, rising, as they are listed now.

        Orphans and temporary files are left out.
        """
        folder = self.folder(place)
        names = map(layout.parse_segment, self.store.list_after(folder))
        bases = [base for base in names if base is not None]
        with self._lock:
            self._chains[place] = _Chain(folder, bases)
        return folder, list(bases)

    def _grown(self, place: Place) -> _Chain:
        """Return what is known of a chain, after a look at what was added."""
        known = self._chains.get(place)
        if known is None or not known.bases:
            self.chain(place)
            return self._chains[place]
        names = self.store.list_after(known.folder, layout.segment_name(known.bases[-1]))
        added = [base for name in names if (base := layout.parse_segment(name)) is not None]
        if not added:
            return known
        grown = _Chain(known.folder, known.bases + [base for base in added if base > known.bases[-1]])
        with self._lock:
            self._chains[place] = grown
        return grown

    def _learn(self, place: Place, bases: Iterable[int]) -> None:
        """Have the facts of segments, several at a time where each takes a round trip."""
        unknown = [base for base in bases if self._footers.known(self._path(place, base)) is None]
        if len(unknown) > 1 and self.is_remote:
            pool = self._threads()
            for future in [pool.submit(self.footer, place, base) for base in unknown]:
                future.result()

    def _facts(self, place: Place, base: int) -> Facts:
        known = self._footers.known(self._path(place, base))
        if known is None:
            self.footer(place, base)
            known = self._footers.known(self._path(place, base))
            assert known is not None
        return known

    def _path(self, place: Place, base: int) -> str:
        known = self._chains.get(place)
        folder = known.folder if known is not None else self.folder(place)
        return f"{folder}/{layout.segment_name(base)}"

    def footer(self, place: Place, base: int) -> Footer:
        """Return a segment's footer, once it is sure that it is this partition's and has this base."""
        path = f"{self.folder(place)}/{layout.segment_name(base)}"
        footer = self._footers.get(path)
        if footer.place != place or footer.base != base:
            raise SegmentCorruptError(
                f"segment {path} says it is {footer.place}@{footer.base} of log {footer.place.log_id} "
                f"(topic id {footer.place.topic_id}); it was moved or renamed: put it back"
            )
        return footer

    def segments(self, topic: str, partition: int) -> list[Segment]:
        """Return a partition's segments in order; raises SegmentCorruptError where one's footer is damaged."""
        place = self.place(topic, partition)
        return [] if place is None else list(self._segments(place))

    def _segments(self, place: Place) -> Iterator[Segment]:
        folder, bases = self.chain(place)
        for base in bases:
            f = self.footer(place, base)
            path = f"{folder}/{layout.segment_name(base)}"
            yield Segment(
                place.topic,
                place.partition,
                base,
                f.next,
                f.count,
                f.min_time,
                f.max_time,
                f.size,
                path,
                f.gap,
            )

    def start(self, topic: str, partition: int) -> int | None:
        """Return the first offset that can be read: past the gap that stands where the archive was begun late."""
        place = self.place(topic, partition)
        bases = [] if place is None else self._grown(place).bases
        if place is None or not bases:
            return None
        first = self._facts(place, bases[0])
        return first.next if first.gap is not None else bases[0]

    def end(self, topic: str, partition: int) -> int | None:
        """Return one past the last archived offset, from the listing and the last footer; None: nothing archived."""
        place = self.place(topic, partition)
        return None if place is None else self.end_of(place)

    def end_of(self, place: Place) -> int | None:
        """As `end`, of a topic by its id."""
        bases = self._grown(place).bases
        return self._facts(place, bases[-1]).next if bases else None

    def covered(self, place: Place, offset: int) -> int:
        """Return the end of the segments that hold records or known holes from `offset` on without a gap; `offset`: none.

        Listed anew, each footer read and checked: whoever drops records from the log goes by this.
        """
        _, bases = self.chain(place)
        covered = offset
        for base in bases[max(0, bisect_right(bases, offset) - 1) :]:
            facts = self._facts(place, base)
            if facts.next <= covered:
                continue
            if base > covered or facts.gap is not None:
                break
            covered = facts.next
        return covered

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        end: int | None = None,
        rows_max: int = ROWS_MAX,
        allow_gaps: bool = False,
    ) -> Iterator[Batch]:
        """Yield batches that tile [offset, min(end, archive's end)); the archive's end is that of the first step.

        A gap raises HandoverGapError, or with `allow_gaps` is an empty batch. Raises SegmentCorruptError before any
        damaged record would be yielded.
        """
        place = self.place(topic, partition)
        if place is None or (end is not None and end <= offset):
            return
        position = offset
        steps = self._plan(place, offset, end, allow_gaps=allow_gaps)
        with self._ahead() as bytes_max:
            for batch in (
                read_ahead(steps, self._threads(), bytes_max=bytes_max) if bytes_max else map(decode, steps)
            ):
                part = batch.slice(position, batch.next if end is None else min(end, batch.next))
                position = part.next
                yield from _cut(part, rows_max)

    @contextmanager
    def _ahead(self) -> Iterator[int]:
        """Give how far a reader may read ahead: from this machine's disk not at all where many others do."""
        if self.is_remote:
            yield AHEAD_BYTES_MAX
            return
        with self._lock:
            self._readers_ahead += 1
            few = self._readers_ahead <= READERS_AHEAD_MAX
        try:
            yield ONE if few else 0
        finally:
            with self._lock:
                self._readers_ahead -= 1

    def _plan(self, place: Place, offset: int, end: int | None, *, allow_gaps: bool) -> Iterator[Step]:
        """Yield what to decode, in order, checking that each segment begins where the one before ends."""
        known = self._grown(place)
        folder, bases = known.folder, known.bases
        if not bases:
            return
        first = bisect_right(bases, offset) - 1
        if first < 0:
            raise _missing(place, offset, bases[0], "the head of the chain")
        for index in range(first, len(bases)):
            base = bases[index]
            if end is not None and base >= end:
                return
            footer = self.footer(place, base)
            if index + 1 < len(bases) and footer.next != bases[index + 1]:
                # Offsets that overlap or are missing: what was read up to here is right, what follows can't be trusted.
                if footer.next < bases[index + 1] and (end is None or footer.next < end):
                    yield from self._of_segment(place, folder, footer, offset, end, allow_gaps=allow_gaps)
                    raise _missing(place, footer.next, bases[index + 1], "a segment")
                if footer.next > bases[index + 1]:
                    raise SegmentCorruptError(
                        f"archive of {place}: segment {layout.segment_name(base)} ends at {footer.next} but the next begins "
                        f"at {bases[index + 1]}; they overlap; run `headwater archive verify {place.topic}`"
                    )
            yield from self._of_segment(place, folder, footer, offset, end, allow_gaps=allow_gaps)

    def _of_segment(
        self, place: Place, folder: str, footer: Footer, offset: int, end: int | None, *, allow_gaps: bool
    ) -> Iterator[Step]:
        if footer.next <= offset:
            return
        if not footer.row_groups:
            if footer.gap is not None and not allow_gaps:
                low, high = max(offset, footer.base), footer.next
                raise HandoverGapError(
                    f"archive of {place} has no offsets {low}..{high - 1}: {footer.gap}; "
                    f"start from offset {high}, or allow gaps (--allow-gaps)",
                    base=low,
                    end=high,
                )
            yield Batch.empty(place.topic, place.partition, footer.base, footer.next)
            return
        reader = SegmentReader(self.store, f"{folder}/{layout.segment_name(footer.base)}", footer)
        for group in footer.row_groups:
            base, following = reader.covers(group.index)
            if following > offset and (end is None or base < end):
                yield reader, group.index

    def offset_for_time(self, topic: str, partition: int, time_ms: int) -> int | None:
        """Return the earliest archived offset whose timestamp is >= `time_ms`, exactly, in whatever order times are."""
        place = self.place(topic, partition)
        if place is None:
            return None
        # What is known comes first in the chain, so what is found there is the earliest: nothing need be listed.
        known = self._chains.get(place)
        seen = 0
        for bases in (known.bases if known is not None else [], None):
            bases = self._grown(place).bases if bases is None else bases
            self._learn(place, bases[seen:])
            for base in bases[seen:]:
                facts = self._facts(place, base)
                if facts.max_time is not None and facts.max_time >= time_ms:
                    found = self._reader(place, base).first_at_or_after(time_ms)
                    if found is not None:
                        return found
            seen = len(bases)
        return None

    def offset_after_last_before(self, topic: str, partition: int, time_ms: int) -> int | None:
        """Return one past the last archived offset whose timestamp is < `time_ms`, or None where there is none."""
        place = self.place(topic, partition)
        if place is None:
            return None
        for base in reversed(self._grown(place).bases):
            facts = self._facts(place, base)
            if facts.min_time is not None and facts.min_time < time_ms:
                found = self._reader(place, base).last_before(time_ms)
                if found is not None:
                    return found + 1
        return None

    def _reader(self, place: Place, base: int) -> SegmentReader:
        return SegmentReader(self.store, self._path(place, base), self.footer(place, base))

    def verify(self, topic: str | None = None) -> Iterator[Finding]:
        """Yield all that is wrong: tiling, checksums, counts and bounds, over all topics (of any id) or one."""
        checked = ""
        for place in self.all_places(topic):
            folder, bases = self.chain(place)
            topic_path = layout.topic_folder(place.log_id, place.topic, place.topic_id)
            # A crash before the first segment may leave a folder without its `_meta.json`: nothing is archived there.
            if bases and topic_path != checked:
                yield from verify_meta(self.store, topic_path, place.topic, place.topic_id)
                checked = topic_path
            yield from verify_partition(self.store, place, folder, bases)

    def all_places(self, topic: str | None = None) -> Iterator[Place]:
        """Yield every partition of every topic folder, also of topics that were deleted and made again."""
        for name, topic_id in sorted(self._topic_folders()):
            if topic is None or name == topic:
                folder = layout.topic_folder(self.log_id, name, topic_id)
                for component in self.store.list_after(folder):
                    partition = layout.parse_partition(component)
                    if partition is not None:
                        yield Place(self.log_id, name, topic_id, partition)


def _cut(batch: Batch, rows_max: int) -> Iterator[Batch]:
    """Yield a batch in parts of at most `rows_max` records."""
    rows = len(batch)
    if rows <= rows_max:
        yield batch
        return
    offsets = batch.offsets
    position = batch.base
    for at in range(rows_max, rows, rows_max):
        yield batch.slice(position, offsets[at])
        position = offsets[at]
    yield batch.slice(position, batch.next)


def _missing(place: Place, base: int, end: int, what: str) -> SegmentCorruptError:
    return SegmentCorruptError(
        f"archive of {place} has no offsets {base}..{end - 1}: {what} is missing, though it was there when the next was "
        f"written; run `headwater archive verify {place.topic}`, restore the file from a copy"
    )
