"""One partition of a table, as a task works on it: overlay over cache over store, and the ordered list of changes.

Reads see the open epoch's writes. Values that can change are encoded when they are set, so one that is changed and set
again leaves two different changes; plain numbers, which can't, are encoded all at once when the epoch is collected, and
with `history=None` only the last of each key ever is. A value of an immutable type is cached as it is; any other is cached encoded and
decoded at each read, so that what a reader gets is its own: changing it without setting it changes nothing, in live
and in replay alike.

Changes stand in plain lists while they may be rolled back, that is until the group of records they belong to is done;
`seal` then puts them together.

Invariants
- Sealed and open changes, in order, are the changelog; the cache over the store reads as their fold (I2).
- `hot` holds only keys that may be written here, so that a write to a key that is in it needs no other check.
- After `rollback` the part reads as if the dropped changes had never been made.
- What `cut` gives is what it stages in the store, which takes it for committed when the engine says so, after the log has (I7).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from headwater.core.errors import HeadwaterError, HomePartitionError, KeyRefusedError
from headwater.core.hot import NUMBER_MAX, HotPart
from headwater.core.keys import encode_key, key_text
from headwater.core.partitioner import partition_of
from headwater.core.windowed import split_window_key
from headwater.table.behind import overlaid
from headwater.table.sealed import CACHED, Sealed, SealedLast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headwater.core.values import Codec
    from headwater.table.behind import WriteBehind
    from headwater.table.sealed import Columns

CACHE_ENTRIES_MAX = 200_000
CACHE_BYTES_MAX = 64 << 20

SEALED_MIN = 1_000
"""From how many open changes on they are sealed between groups: a few would not be worth the columns."""

_SAMPLES: tuple[Any, ...] = (1, 1.5, 1.0, "a", b"a", True, None)
"""One value or more of each type that can't be changed in place."""

_NUMBERS = frozenset({int, float, bool})

_encode_json = msgspec.json.Encoder().encode

_IMMUTABLE = frozenset(type(sample) for sample in _SAMPLES)


class Missing:
    """The type of `MISSING`: no row, which is not the same as a row that holds None."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


class WorkLike(Protocol):
    """What a part needs of the records in hand (`stream.frame.Work`)."""

    @property
    def rows(self) -> Sequence[int]:
        """Row numbers, rising."""
        ...

    @property
    def keys(self) -> Sequence[bytes | None]:
        """Record keys, one a row."""
        ...


class FrameLike(Protocol):
    """What a part needs of the agent that writes (`stream.frame.Frame`)."""

    row: int

    @property
    def work(self) -> WorkLike | None:
        """The records in hand."""
        ...


class TablePart(HotPart):
    """The rows of one table whose home is one partition."""

    __slots__ = (
        "_cache_bytes",
        "_mixed",
        "_sealed",
        "admitted",
        "codec",
        "default",
        "deferred",
        "encode",
        "exact",
        "keeper",
        "kind",
        "local",
        "name",
        "named",
        "number",
        "partition",
        "partitions",
        "raw",
        "shared",
        "store",
        "windowed",
    )

    def __init__(
        self,
        name: str,
        number: int,
        partition: int,
        partitions: int,
        store: WriteBehind,
        codec: Codec,
        *,
        default: Callable[[], Any] | None = None,
        local: bool = False,
        windowed: bool = False,
        last_only: bool = False,
    ) -> None:
        """Begin with nothing cached.

        `local`: keys need not be at home here; `windowed`: keys hold a window, see `core.windowed`. `last_only`: of the
        changes of an epoch only the last of each key is kept.
        """
        self.name = name
        self.number = number
        self.partition = partition
        self.partitions = partitions
        self.store = store
        self.codec = codec
        self.encode = codec.encode
        self.shared = codec.immutable
        self.exact = exact_types(codec)
        # Numbers that the codec writes as JSON and gives back unchanged may be encoded later: nothing can change them.
        plain = all(codec.encode(n) == _encode_json(n) for n in _SAMPLES if type(n) in self.exact & _NUMBERS)
        self.deferred = self.exact & _NUMBERS if plain else frozenset[type]()
        # The type of the numbers that were set last: `table[key] = …` takes the short way with those.
        self.number_kind = None
        self.default = default
        self.keeper: Any = None
        """The operator that closes the windows of a table which agents write, where there is one."""
        self.local = local or partitions == 1
        self.windowed = windowed
        # Keys that hold a window are hardly ever text, so they stay the bytes they are.
        self.kind = bytes if windowed else str
        self.named: Callable[[Any], Any] = encode_key if windowed else canonical
        self.hot = {}
        self.raw: dict[Any, bytes | None] = {}
        self.admitted: set[Any] = set()
        self._cache_bytes = 0
        # Changes that may still be rolled back, as columns: key, value (a number yet to be encoded, encoded bytes, None
        # for deleted), row.
        self.keys = []
        self.values = []
        self.rows = []
        self._mixed = False
        self._sealed = SealedLast() if last_only else Sealed()

    # Keys are held as text where they are valid UTF-8, else as bytes: text is what most keys are, and Arrow takes it
    # without a step in between.

    def get(self, key: str | bytes) -> Any:
        """Return the value under a canonical key, or `MISSING` where there is no row."""
        value = self.hot.get(key, MISSING)
        if value is not MISSING:
            return value
        data = self.raw.get(key, MISSING)
        if data is MISSING:
            data = self.store.get(_bytes(key))
            self._remember(key, data)
        if data is None:
            return MISSING
        value = self.codec.decode(data)
        if (type(value) in _IMMUTABLE or self.shared) and self._is_home(key):
            self.hot[key] = value
        return value

    def read(self, key: Any) -> Any:
        """Return the value under a user's key; the default where there is none, else raises KeyError."""
        name = key if type(key) is self.kind else self.named(key)
        value = self.get(name)
        if value is MISSING:
            if self.default is None:
                raise KeyError(key)
            return self.default()
        return value

    def find(self, key: Any, otherwise: Any = None) -> Any:
        """Return the value under a user's key, or `otherwise`: the default is not used."""
        value = self.get(key if type(key) is self.kind else self.named(key))
        return otherwise if value is MISSING else value

    def has(self, key: Any) -> bool:
        """Tell whether a row is there."""
        return self.get(key if type(key) is self.kind else self.named(key)) is not MISSING

    def put(self, key: Any, value: Any, frame: FrameLike) -> None:
        """Set a row. Raises HomePartitionError where the key's home is another partition.

        `core.hot.HotTable` holds the usual case of this, written out: a change here is a change there.
        """
        name = key if type(key) is self.kind else self.named(key)
        number = type(value)
        deferred = number in self.deferred and -NUMBER_MAX < value < NUMBER_MAX
        data = value if deferred else self.encode(value)
        if name not in self.admitted and not self.admit(name, key, frame) and deferred:
            deferred, data = False, self.encode(value)
        if deferred:
            self.number_kind = number
        else:
            self._mixed = True
        self.keys.append(name)
        self.values.append(data)
        self.rows.append(frame.row)
        # Only what decodes to itself is cached as it is: 1 set in a table of floats reads as 1.0, cached or not.
        if number in self.exact and name in self.admitted:
            self.hot[name] = value
        else:
            self.hot.pop(name, None)
            self.raw[name] = data

    def delete(self, key: Any, frame: FrameLike) -> bool:
        """Remove a row; a row that isn't there leaves no change. Return whether one was there."""
        name = key if type(key) is self.kind else self.named(key)
        if self.get(name) is MISSING:
            return False
        if name not in self.admitted:
            self.admit(name, key, frame)
        self._mixed = True
        self.keys.append(name)
        self.values.append(None)
        self.rows.append(frame.row)
        self.hot.pop(name, None)
        self.raw[name] = None
        return True

    def items(self) -> Iterator[tuple[bytes, Any]]:
        """Yield rows with the open epoch's writes, in key-byte order; values are decoded."""
        for key, data in self.raw_items():
            yield key, self.codec.decode(data)

    def raw_items(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Return rows as stored bytes with the open epoch's writes, in key-byte order.

        Only those whose key begins with `prefix`, and from key `start` on.
        """
        return overlaid(self._last_values(), self.store.scan(prefix, start), prefix, start)

    @property
    def count(self) -> int:
        """How many changes the open epoch holds."""
        return self._sealed.count + len(self.keys)

    def sample(self, mark: int, size: int) -> list[Any]:
        """Return values of about `size` of the changes from number `mark` on, none of which is sealed."""
        low = mark - self._sealed.count
        return self.values[low :: max(1, (len(self.values) - low) // size)]

    def settle(self) -> None:
        """Take all changes as made for good: between groups nothing before can be rolled back."""
        if len(self.keys) >= SEALED_MIN:
            self.seal()

    def seal(self) -> None:
        """Put the open changes where they can't be rolled back any more."""
        keys, values, rows = self.keys, self.values, self.rows
        if not keys:
            return
        self._sealed.add(keys, values, rows, self._encoded if self._mixed else None)
        self.keys, self.values, self.rows, self._mixed = [], [], [], False

    def cut(self) -> Columns:
        """End the open epoch: return its changes in order as columns, and stage what they come to in the store."""
        self.seal()
        columns = self._sealed.columns()
        if self._sealed.count:
            changes = self._last_values()
            self.store.stage(changes)
            # What was set is in the cache from here on: it counts towards the bound (100 bytes for the entry).
            self._cache_bytes += sum([100 + len(data) for data in changes.values() if data is not None])
            self._sealed.clear()
        # A full cache is dropped whole: what is in use comes back at once, and no bookkeeping is paid on each read.
        if len(self.raw) + len(self.hot) > CACHE_ENTRIES_MAX or self._cache_bytes > CACHE_BYTES_MAX:
            self.forget()
        return columns

    def rollback(self, row: int, floor: int) -> None:
        """Drop the changes from number `floor` on that were made for rows >= `row`."""
        rows = self.rows
        end, low = len(rows), max(0, floor - self._sealed.count)
        while end > low and rows[end - 1] >= row:
            end -= 1
        self.truncate(self._sealed.count + end)

    def truncate(self, length: int) -> None:
        """Drop the changes from number `length` on; what is sealed stays."""
        low = max(0, length - self._sealed.count)
        keys, values = self.keys, self.values
        dropped = set(keys[low:])
        if not dropped:
            return
        del keys[low:], values[low:], self.rows[low:]
        for name in dropped:
            self.hot.pop(name, None)
            self.raw.pop(name, None)
        for at in range(low - 1, -1, -1):
            name = keys[at]
            if name in dropped:
                self._restore(name, values[at])
                dropped.discard(name)
                if not dropped:
                    return
        for name in dropped & self._sealed.last.keys():
            value = self._sealed.last[name]
            if value is CACHED:
                # The cache held the number, and has lost it: its bytes are among the sealed.
                value = self.codec.decode(self._sealed.last_value(_bytes(name)) or b"")
            self._restore(name, value)

    def _restore(self, name: Any, value: Any) -> None:
        if value is None or type(value) is bytes:
            self.raw[name] = value
        else:
            self.hot[name] = value

    def _last_values(self) -> dict[bytes, bytes | None]:
        """Return the last value of each key that the open epoch has changed."""
        hot, encoded = self.hot, self._encoded
        last: dict[bytes, bytes | None] = {}
        open_now = dict(zip(self.keys, self.values, strict=True))
        for name, value in self._sealed.last.items():
            if name not in open_now:
                last[_bytes(name)] = encoded(hot[name] if value is CACHED else value)
        for name, value in open_now.items():
            last[_bytes(name)] = encoded(value)
        return last

    def _encoded(self, value: Any) -> bytes | None:
        return value if value is None or type(value) is bytes else self.encode(value)

    def forget(self) -> None:
        """Drop all cached values (not the open epoch's writes; only valid while there are none)."""
        self.hot, self.raw, self._cache_bytes = {}, {}, 0
        self.admitted = set()

    def _remember(self, name: Any, data: bytes | None) -> None:
        self.raw[name] = data
        self._cache_bytes += 100 + (len(data) if data else 0)

    def _is_home(self, name: str | bytes) -> bool:
        """Tell whether a key may be written here whatever the record in hand; only such keys are cached decoded."""
        if name not in self.admitted:
            if not self.local and partition_of(self._placed(name), self.partitions) != self.partition:
                return False
            self.admitted.add(name)
        return True

    def _placed(self, name: str | bytes) -> bytes:
        """Return the key bytes that a row's home hangs on: without its window."""
        data = _bytes(name)
        return split_window_key(data).key if self.windowed else data

    def admit(self, name: str | bytes, key: Any, frame: FrameLike) -> bool:
        """Check a key at its first write; tell whether it may be written from here on, whatever the record.

        A key that is only the record's own is checked again with another record. Raises HomePartitionError unless the
        key is the record's own, this partition is its home, or the table is local; KeyRefusedError for text that UTF-8
        can't hold.
        """
        data = self._placed(name)
        if self._is_home(name):
            return True
        record_key = record_key_of(frame)
        if data != record_key:
            home = partition_of(data, self.partitions)
            raise HomePartitionError(
                f"table {self.name!r}: key {key!r} lives in partition {home} of {self.partitions}, but this task works "
                f"on partition {self.partition} (record key {record_key!r}); send the records to the key's home first: "
                "stream.group_by(…) on this key, or declare the table with local=True if rows belong to the partition "
                "that writes them"
            )
        return False


def record_key_of(frame: FrameLike) -> bytes | None:
    """Return the key of the record in hand, or None where none is."""
    work = frame.work
    if work is None:
        return None
    at = bisect_left(work.rows, frame.row)
    return work.keys[at] if at < len(work.keys) and work.rows[at] == frame.row else None


def canonical(key: Any) -> str | bytes:
    """Return a user's key as a part holds it. Raises KeyRefusedError for None and keys that can't be encoded."""
    data = encode_key(key)
    if data is None:
        raise KeyRefusedError(
            "None can't be the key of a table row; skip records without a key, or choose another key"
        )
    return key_text(data)


def exact_types(codec: Codec) -> frozenset[type]:
    """Return the types whose values a codec gives back just as they were set, so that they may be cached undecoded."""
    broken: set[type] = set()
    for sample in _SAMPLES:
        try:
            back = codec.decode(codec.encode(sample))
        except (HeadwaterError, TypeError, ValueError):
            broken.add(type(sample))
            continue
        if type(back) is not type(sample) or back != sample:
            broken.add(type(sample))
    return _IMMUTABLE - broken


def _bytes(name: str | bytes) -> bytes:
    if isinstance(name, bytes):
        return name
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise KeyRefusedError(f"key {name!r} is not valid Unicode text ({error.reason}); use bytes") from None
