"""The archiver: copies a log's partitions into segments, beside any number of others like it; it holds no records between passes.

Protocol for each partition
1. The next base is the end of the last segment, from listing and footer, never from a group's positions.
2. Records from exactly there are read; where the log begins later, the range between becomes a gap segment (alarm).
3. They are put under a name made of the base alone, if there is none of it: a compare-and-swap on the partition's end.
4. Put: the end moves on. Not put: what is there may be our own, from a try whose reply was lost; else another archiver
   was faster, and we go on from where its segment ends.
Invariant: a segment at base b exists only if someone saw one that ends at b, so by induction there is one chain, from 0,
without gap or overlap (I13, I14), whatever crashes, stalls or races.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from headwater.archive import layout
from headwater.archive.local import LocalStore
from headwater.archive.meta import meta_bytes, read_meta
from headwater.archive.objects import ObjectStore
from headwater.archive.opening import probe
from headwater.archive.segment import FORMAT, SCHEMA, Place, encode_segment
from headwater.archive.storage import no_crash
from headwater.core.clock import SYSTEM_CLOCK, Clock
from headwater.core.crash import point
from headwater.core.errors import LogCorruptError, OffsetTrimmedError, StoreRefusedError

if TYPE_CHECKING:
    from headwater.archive.archive import Archive
    from headwater.core.batch import Batch

logger = logging.getLogger(__name__)

ROLL_BYTES = 128 << 20
ROLL_ROWS = 1_000_000
ROLL_AGE_S = 60.0
TRIM_EVERY_S = 10.0
_READ_BYTES = 8 << 20
_SAMPLE_BYTES = 64 << 10


class TopicFacts(Protocol):
    """What the archiver reads of the log's TopicInfo."""

    @property
    def name(self) -> str:
        """The topic's name."""
        ...

    @property
    def topic_id(self) -> str:
        """Its id."""
        ...

    @property
    def partitions(self) -> int:
        """How many partitions it has."""
        ...


class ReadableLog(Protocol):
    """The part of a log that an archiver needs; `headwater.log.interface.Log` has it."""

    log_id: str

    def topic(self, name: str) -> TopicFacts | None:
        """Return a topic, or None."""
        ...

    def start_offset(self, topic: str, partition: int) -> int:
        """Return the first offset there."""
        ...

    def end_offset(self, topic: str, partition: int) -> int:
        """Return one past the last committed offset."""
        ...

    def read(
        self, topic: str, partition: int, offset: int, *, end: int | None = None, bytes_max: int = ...
    ) -> Batch:
        """Return records from `offset` on."""
        ...

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Drop records with offsets below `before`."""
        ...


@dataclass(slots=True)
class _Tail:
    """What an archiver remembers of a partition: never more than the listing could tell again."""

    next: int | None = None
    waiting_since_s: float | None = None
    trimmed_at_s: float | None = None
    bytes_per_record: float | None = None


@dataclass(slots=True)
class Counts:
    """What an archiver has done since it was made.

    `lost`: offsets that were gone from the log before they could be archived; `overtaken`: puts that another archiver
    was faster with; `repeated`: puts that were found done, their reply having been lost; `trimmed`: offsets dropped from
    the log because they are archived and no longer hot.
    """

    records: int = 0
    segments: int = 0
    bytes: int = 0
    gaps: int = 0
    lost: int = 0
    overtaken: int = 0
    repeated: int = 0
    trimmed: int = 0


class Archiver:
    """Copies topics of a log to its archive. `topics` is asked anew at each pass where it is a function."""

    def __init__(
        self,
        log: ReadableLog,
        archive: Archive,
        topics: Callable[[], Iterable[str]] | Sequence[str],
        *,
        roll_bytes: int = ROLL_BYTES,
        roll_rows: int = ROLL_ROWS,
        roll_age_s: float = ROLL_AGE_S,
        hot_ms: Mapping[str, int] | None = None,
        single_writer: bool = False,
        clock: Clock = SYSTEM_CLOCK,
        crash: Callable[[str], None] = point,
    ) -> None:
        """Probe the storage (StoreRefusedError). A segment is closed at the first of the three limits.

        `hot_ms`: for topics named there, records that are archived and whose timestamps are older than that are dropped from
        the log. `single_writer`: the caller vouches that no other archiver runs, so a storage that can't refuse one will do.
        """
        self._log = log
        self._archive = archive
        self._store = archive.store
        self._topics = topics
        self._roll_bytes = roll_bytes
        self._roll_rows = roll_rows
        self._roll_age_s = roll_age_s
        self._hot_ms = dict(hot_ms or {})
        self._clock = clock
        self._crash = crash
        self._tails: dict[Place, _Tail] = {}
        self.writer_id = uuid.uuid4().hex
        self.counts = Counts()
        if single_writer and isinstance(self._store, ObjectStore):
            self._store.single_writer = True
            logger.warning(
                "single-writer mode: nothing stops a second archiver from overwriting this one's segments",
                extra={"archive": self._store.url},
            )
            return
        if isinstance(self._store, LocalStore):
            self._store.crash = no_crash
        probe(self._store)
        if isinstance(self._store, LocalStore):
            self._store.crash = crash

    def step(self) -> int:
        """Archive what is due in every partition, once; return how many records that was."""
        return sum(self._keep_up(place, everything=False) for place in self._places())

    def flush(self) -> int:
        """Archive all that is in the log now, due or not; return how many records that was."""
        return sum(self._keep_up(place, everything=True) for place in self._places())

    def _keep_up(self, place: Place, *, everything: bool) -> int:
        records = self._pass(place, everything=everything)
        hot_ms = self._hot_ms.get(place.topic)
        if hot_ms is not None:
            self._trim(place, hot_ms, now=everything)
        return records

    def _trim(self, place: Place, hot_ms: int, *, now: bool) -> None:
        """Drop from the log what is archived and no longer hot, having looked at the archive itself, not at what we remember."""
        tail, now_s = self._tails[place], self._clock.monotonic_s()
        if not now and tail.trimmed_at_s is not None and now_s - tail.trimmed_at_s < TRIM_EVERY_S:
            return
        tail.trimmed_at_s = now_s
        start = self._log.start_offset(place.topic, place.partition)
        archived = self._archive.covered(place, start)
        # The first record that is still hot, whatever the order of times: nothing from there on goes.
        hot = self._archive.offset_for_time(place.topic, place.partition, self._clock.now_ms() - hot_ms)
        before = archived if hot is None else min(archived, hot)
        if before <= start:
            return
        self._crash("archive.trim")
        self._log.trim(place.topic, place.partition, before)
        self.counts.trimmed += before - start
        logger.info(
            "dropped what is archived",
            extra={"topic": place.topic, "partition": place.partition, "base": start, "end": before},
        )

    def until_idle(self) -> int:
        """Archive all that is in the log now, and return; every record of it is then in a committed segment.

        The same as `flush`, for those who ask for the state and not for the deed.
        """
        return self.flush()

    def _places(self) -> list[Place]:
        names = self._topics() if callable(self._topics) else self._topics
        places = []
        for name in sorted(set(names)):
            info = self._log.topic(name)
            if info is not None:
                places += [Place(self._log.log_id, name, info.topic_id, n) for n in range(info.partitions)]
                self._archive.bind({name: info})
        for place in set(self._tails).difference(places):
            del self._tails[place]
        return places

    def _pass(self, place: Place, *, everything: bool) -> int:
        """Write segments of one partition until nothing more is due, up to the log's end as it is now."""
        tail = self._tails.get(place)
        if tail is None:
            tail = self._tails[place] = self._begin(place)
        end = self._log.end_offset(place.topic, place.partition)
        records = 0
        while True:
            if tail.next is None:
                self._crash("archive.list")
                tail.next = self._archive.end_of(place) or 0
            if tail.next >= end:
                if tail.next > end:
                    self._check_not_ahead(place, tail.next)
                tail.waiting_since_s = None
                return records
            start = self._log.start_offset(place.topic, place.partition)
            try:
                if start > tail.next:
                    self._write_gap(place, tail, start)
                elif everything or self._due(place, tail, end):
                    records += self._write(place, tail, end)
                else:
                    return records
            except OffsetTrimmedError as trimmed:
                # Trimmed since we asked for its start: round again, where it becomes a gap.
                if tail.next is None or trimmed.start <= tail.next:
                    raise

    def _begin(self, place: Place) -> _Tail:
        """Make the topic's and the partition's folder ready."""
        topic_path = layout.topic_folder(place.log_id, place.topic, place.topic_id)
        if read_meta(self._store, topic_path) is None:
            fields = {
                "format": FORMAT, "topic": place.topic, "topic_id": place.topic_id, "log_id": place.log_id,
                "created": self._clock.now_ms(),
            }  # fmt: skip
            # Another archiver may have been faster: its file says the same.
            self._store.put_if_absent(f"{topic_path}/{layout.META}", meta_bytes(fields))
        if isinstance(self._store, LocalStore):
            self._store.collect(topic_path)
            self._store.collect(self._archive.folder(place))
        return _Tail()

    def _check_not_ahead(self, place: Place, next: int) -> None:
        end = self._log.end_offset(place.topic, place.partition)
        if next > end:
            raise LogCorruptError(
                f"the archive of {place} reaches offset {next} but log {place.log_id} ends at {end}: the log was put back "
                "to an older state; what is archived can't be taken back, so give the restored log a new archive"
            )

    def _due(self, place: Place, tail: _Tail, end: int) -> bool:
        """Return whether a segment should be closed now; starts the age of what waits."""
        assert tail.next is not None
        waiting, now_s = end - tail.next, self._clock.monotonic_s()
        if tail.waiting_since_s is None:
            tail.waiting_since_s = now_s
        if waiting >= self._roll_rows or now_s - tail.waiting_since_s >= self._roll_age_s:
            return True
        if tail.bytes_per_record is None:
            sample = self._log.read(place.topic, place.partition, tail.next, bytes_max=_SAMPLE_BYTES)
            tail.bytes_per_record = sample.nbytes / max(len(sample), 1)
        return waiting * tail.bytes_per_record >= self._roll_bytes

    def _write(self, place: Place, tail: _Tail, end: int) -> int:
        """Read and put one segment; return how many records it added."""
        assert tail.next is not None
        base = position = tail.next
        batches: list[pa.RecordBatch] = []
        rows = nbytes = 0
        while position < end and rows < self._roll_rows and nbytes < self._roll_bytes:
            # A bound on records: a segment holds at most `roll_rows` of them even where the log's reads are larger.
            stop = min(end, position + self._roll_rows - rows)
            bytes_max = max(1, min(_READ_BYTES, self._roll_bytes - nbytes))
            batch = self._log.read(place.topic, place.partition, position, end=stop, bytes_max=bytes_max)
            if batch.base != position or batch.next <= position:
                raise LogCorruptError(
                    f"reading {place}@{position} gave {batch!r} though the log ends at {end}; check the log"
                )
            if len(batch):
                made = _to_arrow(batch, place.partition)
                batches.append(made)
                rows += made.num_rows
                nbytes += made.nbytes
            position = batch.next
            self._crash("archive.read")
        if rows:
            tail.bytes_per_record = nbytes / rows
        data = encode_segment(
            place, base, position, batches, writer_id=self.writer_id, created_ms=self._clock.now_ms()
        )
        self._crash("archive.encoded")
        return rows if self._put(place, tail, base, position, data) else 0

    def _write_gap(self, place: Place, tail: _Tail, start: int) -> None:
        """Record that the log lost [next, start) before it could be archived."""
        assert tail.next is not None
        base = tail.next
        cause = (
            "the log began here when the archive was begun"
            if base == 0
            else "the log was trimmed before this was archived"
        )
        data = encode_segment(
            place, base, start, [], writer_id=self.writer_id, created_ms=self._clock.now_ms(), gap=cause
        )
        self._crash("archive.encoded")
        if self._put(place, tail, base, start, data):
            self.counts.gaps += 1
            fields: Mapping[str, Any] = {
                "topic": place.topic,
                "partition": place.partition,
                "base": base,
                "end": start,
            }
            if base == 0:
                logger.info("archive begins after the log's first offset", extra=fields)
            else:
                self.counts.lost += start - base
                logger.error("offsets were trimmed before they were archived", extra=fields)

    def _put(self, place: Place, tail: _Tail, base: int, next: int, data: bytes) -> bool:
        """Create the segment and move the tail; False where another's is there."""
        tail.next = None  # whatever happens now, only what is there tells: a failed put may have been one
        path = f"{self._archive.folder(place)}/{layout.segment_name(base)}"
        won = self._store.put_if_absent(path, data)
        self._crash("archive.put")
        there = self._archive.footer(place, base)
        # The footer holds writer, offsets and the checksums of all pages: the same footer is the same segment.
        ours = there.tail == data[there.pages_end :]
        if not won and not ours:
            self._crash("archive.lost")
            self.counts.overtaken += 1
            logger.info("another archiver was faster", extra={"segment": path, "writer": there.writer_id})
            # Its own footer is asked beside the listing: some stores' listings lag behind what is there.
            tail.next = max(there.next, self._archive.end_of(place) or 0)
            return False
        if not ours:
            raise StoreRefusedError(
                f"segment {self._store.url}/{path} was created by this archiver, but another's ({there.writer_id}) is there: the "
                "store overwrites, or two archivers ran in single-writer mode; stop all of them, run `headwater archive verify`"
            )
        if not won:
            self.counts.repeated += 1
        tail.next = next
        tail.waiting_since_s = None
        self.counts.segments += 1
        self.counts.bytes += len(data)
        self.counts.records += there.count
        return True


def _to_arrow(batch: Batch, partition: int) -> pa.RecordBatch:
    """Return a batch's records with the columns of a segment; what is in Arrow stays there."""
    rows = len(batch)
    offsets, timestamps, keys, values = batch.columns
    headers = batch.headers
    pairs = SCHEMA.field("headers").type
    if headers is None or not any(headers):
        header_column = pa.ListArray.from_arrays(
            pa.nulls(rows + 1, pa.int32()).fill_null(0), pa.array([], pairs.value_type), type=pairs
        )
    else:
        header_column = pa.array(
            [[{"key": k, "value": v} for k, v in pairs_of or ()] for pairs_of in headers], pairs
        )
    zeros = pa.nulls(rows, pa.int32()).fill_null(0)
    return pa.RecordBatch.from_arrays(
        [
            _array(offsets, pa.int64()),
            _array(timestamps, pa.int64()),
            zeros,
            _array(keys, pa.binary()),
            _array(values, pa.binary()),
            header_column,
            pa.nulls(rows, pa.int32()).fill_null(partition),
        ],
        schema=SCHEMA,
    )


def _array(column: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.Array):
        return column if column.type == kind else column.cast(kind)
    if isinstance(column, range):
        return pa.arange(column.start, column.stop, column.step)
    return pa.array(column, kind)
