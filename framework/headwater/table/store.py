"""Store: the rows of one table partition with the changelog offset they reach; the only importer of rocksdict.

Data and offset move in one RocksDB WriteBatch (or one ingested SST file), so a store is always the fold of its
changelog at exactly its offset (I7). Batches are not synced to disk: a killed process loses nothing that it wrote, a
power cut loses the newest batches whole, data and offset alike, and recovery reads those from the changelog again.
A store knows nothing of overlays, caches or decoded values.
"""

from __future__ import annotations

import struct
import weakref
from collections import deque
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

import rocksdict

from headwater.core.errors import HeadwaterError, RecoveryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Run: TypeAlias = "tuple[Sequence[bytes], Sequence[bytes | None]]"
"""Keys in rising order and their values (None: deleted), side by side."""

FORMAT = 1
"""Version of what is kept in the meta key and of the prefix before data keys."""

WRITE_BUFFER_BYTES = 64 << 20
BLOCK_CACHE_BYTES = 64 << 20
"""Bounds over all stores of a process: a hundred partitions may not take a hundred buffers (1 M new keys once took
2.2 GiB)."""

_META = b"\x00meta"
_DATA = b"\x01"  # before every data key: no table key, not even "\x00meta", can meet the meta key
_PAST_DATA = b"\x02"
_OFFSET = struct.Struct(">q")
_INGEST_FILE = "ingest.tmp"


class StoreHeldError(HeadwaterError):
    """Another process, or an unclosed store of this one, holds the folder."""


class StoreClosedError(HeadwaterError):
    """A store, or a walk over its rows, was used after the store was closed."""


class StateStore(Protocol):
    """What every store promises; Store and MemoryStore are held to it by one contract test."""

    @property
    def changelog_offset(self) -> int:
        """The next changelog offset: the rows are the fold of all changes before it."""
        ...

    @property
    def name(self) -> str:
        """`table/partition`, for messages."""
        ...

    def get(self, key: bytes) -> bytes | None:
        """Return a row's value bytes, or None where there is no row (a JSON null is the bytes `null`)."""
        ...

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Walk all rows in the order of key bytes, as they are at the time of this call."""
        ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Walk the rows whose key begins with `prefix`, from key `start` on, as `items` does."""
        ...

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int) -> None:
        """Set and delete (None) rows and move the offset, all or nothing."""
        ...

    def ingest(self, keys: Sequence[bytes], values: Sequence[bytes | None], changelog_offset: int) -> None:
        """Do as `write`, for many keys in strictly rising order."""
        ...

    def ingest_runs(self, runs: Iterable[Run], changelog_offset: int) -> None:
        """Do as `ingest`, for keys that come in several runs, each past the one before."""
        ...

    def is_empty(self) -> bool:
        """Whether there are no rows; cheap."""
        ...

    def clear(self) -> None:
        """Drop all rows and set the offset to 0, all or nothing."""
        ...

    def close(self) -> None:
        """Let go of the folder and its lock; walks still under way end in an error. Idempotent."""
        ...

    def __len__(self) -> int: ...


def open_store(root: str, table: str, partition: int) -> StateStore:
    """Return the store of a table partition: `memory://` for tests, else in a folder of its own below `root`.

    Raises StoreHeldError, RecoveryError (what is there is no sound store of this table and partition).
    """
    if root.startswith("memory://"):
        return MemoryStore(table, partition)
    return Store(Path(root.removeprefix("file://")) / table / str(partition), table, partition)


class Store:
    """A table partition's rows in RocksDB."""

    def __init__(self, path: str | Path, table: str, partition: int) -> None:
        """Open the folder, or make it; it is this object's alone until `close`."""
        self._path = Path(path)
        self.name = f"{table}/{partition}"
        self._identity = f"{FORMAT} {self.name}".encode()
        self._walks: weakref.WeakSet[_Walk] = weakref.WeakSet()
        self._db: Any = None
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            (self._path / _INGEST_FILE).unlink(missing_ok=True)  # of a process killed while it wrote the file
        except OSError as error:
            raise HeadwaterError(
                f"can't make the state folder {self._path} of table {self.name}: {error.strerror or error}; "
                "choose another folder with --state or mend this one"
            ) from error
        try:
            self._db = rocksdict.Rdict(str(self._path), _options())
            meta = self._db.get(_META)
        except Exception as error:
            self._refuse(error)
        self._offset = self._check_meta(meta)

    @property
    def changelog_offset(self) -> int:
        """The next changelog offset: the rows are the fold of all changes before it."""
        return self._offset

    def get(self, key: bytes) -> bytes | None:
        """Return a row's value bytes, or None where there is no row."""
        try:
            return self._db.get(_DATA + key)  # type: ignore[no-any-return]
        except Exception as error:
            self._refuse(error)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Walk all rows in the order of key bytes, as they are at the time of this call."""
        return self._walk(b"")

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Walk the rows whose key begins with `prefix`, from key `start` on, as `items` does."""
        walk = self._walk(max(prefix, start))
        for row in walk:
            if not row[0].startswith(prefix):
                walk.end()
                return
            yield row

    def _walk(self, first: bytes) -> _Walk:
        try:
            walk = _Walk(self, self._db, _DATA + first)
        except Exception as error:
            self._refuse(error)
        self._walks.add(walk)
        return walk

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int) -> None:
        """Set and delete (None) rows and move the offset in one WriteBatch."""
        refuse_backwards(self.name, self._offset, changelog_offset)
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes.items():
            if value is None:
                delete(_DATA + key)
            else:
                put(_DATA + key, value)
        put(_META, self._meta(changelog_offset))
        try:
            self._db.write(batch)
        except Exception as error:
            self._refuse(error)
        self._offset = changelog_offset

    def ingest(self, keys: Sequence[bytes], values: Sequence[bytes | None], changelog_offset: int) -> None:
        """Do as `write`, for many keys in strictly rising order."""
        self.ingest_runs([(keys, values)], changelog_offset)

    def ingest_runs(self, runs: Iterable[Run], changelog_offset: int) -> None:
        """Write one SST file of all runs and the offset, and take it in: five times as fast as a WriteBatch.

        The meta key goes into the same file, so that data and offset are as atomic as in `write`. As every batch holds
        that key too, RocksDB must first bring earlier batches from memory to disk: a power cut can't take a batch and
        leave a file, with its higher offset, that came after it.
        """
        refuse_backwards(self.name, self._offset, changelog_offset)
        path = self._path / _INGEST_FILE
        try:
            file = rocksdict.SstFileWriter(_options())
            file.open(str(path))
            file[_META] = self._meta(changelog_offset)  # sorts before all data
            for keys, values in runs:
                if len(keys) != len(values):
                    raise ValueError(f"{len(keys)} keys and {len(values)} values to ingest into {self.name}")
                if values.count(None):
                    for key, value in zip(keys, values, strict=True):
                        if value is None:
                            del file[_DATA + key]
                        else:
                            file[_DATA + key] = value
                else:  # a loop in C: recovery spends a third of its time here
                    deque(map(file.__setitem__, map(_DATA.__add__, keys), values), maxlen=0)
            file.finish()
            how = rocksdict.IngestExternalFileOptions()
            how.set_move_files(True)
            self._db.ingest_external_file([str(path)], how)
        except (HeadwaterError, ValueError):
            raise
        except Exception as error:
            if "added in order" in str(error) or "strict ascending" in str(error):
                raise ValueError(
                    f"keys to ingest into {self.name} are not in strictly rising order"
                ) from error
            self._refuse(error)
        finally:
            path.unlink(missing_ok=True)
        self._offset = changelog_offset

    def is_empty(self) -> bool:
        """Whether there are no rows; cheap."""
        try:
            rows = self._db.iter()
            rows.seek(_DATA)
            found = rows.valid()
            rows.status()
        except Exception as error:
            self._refuse(error)
        return not found

    def clear(self) -> None:
        """Drop all rows and set the offset to 0 in one WriteBatch."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.delete_range(_DATA, _PAST_DATA)
        batch.put(_META, self._meta(0))
        try:
            self._db.write(batch)
        except Exception as error:
            self._refuse(error)
        self._offset = 0

    def close(self) -> None:
        """Let go of the folder and its lock. Idempotent."""
        for walk in list(self._walks):
            walk.end()  # a living iterator would keep RocksDB's LOCK
        if self._db is not None:
            try:
                self._db.close()
            except rocksdict.DbClosedError:
                return

    def __len__(self) -> int:
        """Count the rows by walking them: RocksDB knows only an estimate."""
        return sum(1 for _ in self.items())

    def _meta(self, changelog_offset: int) -> bytes:
        return _OFFSET.pack(changelog_offset) + self._identity

    def _check_meta(self, meta: bytes | None) -> int:
        if meta is None:
            if self.is_empty():
                return 0
            found = "rows without the record of what they are"
        elif meta[_OFFSET.size :] == self._identity:
            return int(_OFFSET.unpack_from(meta)[0])
        else:
            found = f"a store of {meta[_OFFSET.size :].decode(errors='replace')!r}"
        self.close()
        raise RecoveryError(
            f"the state folder {self._path} should hold {self._identity.decode()!r} (format, table/partition), found "
            f"{found}; delete the folder: the state is rebuilt from the changelog"
        )

    def _refuse(self, error: Exception) -> NoReturn:
        """Raise what a caller can act on for whatever RocksDB said (it raises bare Exceptions with a text)."""
        text = str(error)
        where = f"the state folder {self._path} of table {self.name}"
        if isinstance(error, rocksdict.DbClosedError):
            raise StoreClosedError(f"the store of table {self.name} is closed; open it anew") from error
        if "lock hold by current process" in text:
            raise StoreHeldError(
                f"{where} is open already in this process; close the other store first"
            ) from error
        if "lock file" in text:
            raise StoreHeldError(
                f"{where} is held by another process; stop that worker, or give this one another folder with --state"
            ) from error
        if not text.startswith("Corruption") and any(
            reason in text
            for reason in ("No space", "Read-only", "Permission denied", "Too many open files", "quota")
        ):
            raise HeadwaterError(
                f"{where} can't be used: {text}; free or allow what is missing and start again"
            ) from error
        raise RecoveryError(
            f"{where} is damaged: {text}; delete the folder: the state is rebuilt from the changelog"
        ) from error


class _Walk:
    """A walk over a store's rows, which the store can end: its RocksDB iterator would keep the LOCK."""

    __slots__ = ("__weakref__", "_db", "_last", "_rows", "_store")

    def __init__(self, store: Store, db: Any, first: bytes) -> None:
        self._store = store
        self._db = db
        self._rows = db.items(from_key=first)
        self._last = first

    def __iter__(self) -> _Walk:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        rows = self._rows
        if rows is None:
            if self._db is None:
                raise StoreClosedError(
                    f"the store of table {self._store.name} was closed during a walk over its rows"
                )
            raise StopIteration
        try:
            key, value = next(rows)
        except StopIteration:
            self._rows = None
            self._check_end()
            raise
        self._last = key
        return key[1:], value

    def end(self) -> None:
        """Let go of the iterator; the next step raises StoreClosedError."""
        if self._rows is not None:
            self._rows = self._db = None

    def _check_end(self) -> None:
        """Raise where the rows ended at a damaged block: rocksdict's iterator stops there without a word.

        Damage is the one reason why nothing may follow and the status not be good; writes made since the walk began
        may rightly follow.
        """
        try:
            rows = self._db.iter()
            rows.seek(self._last)
            if rows.valid():
                rows.next()
            rows.status()
        except Exception as error:
            self._store._refuse(error)


class MemoryStore:
    """A table partition's rows in a dict: for tests, and for folds that need no folder."""

    def __init__(self, table: str = "memory", partition: int = 0) -> None:
        """Start empty, at offset 0."""
        self.name = f"{table}/{partition}"
        self._rows: dict[bytes, bytes] = {}
        self._offset = 0
        self._open = True

    @property
    def changelog_offset(self) -> int:
        """The next changelog offset: the rows are the fold of all changes before it."""
        return self._offset

    def get(self, key: bytes) -> bytes | None:
        """Return a row's value bytes, or None where there is no row."""
        self._check_open()
        return self._rows.get(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Walk all rows in the order of key bytes, as they are at the time of this call."""
        self._check_open()
        return self._walk(sorted(self._rows.items()))

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Walk the rows whose key begins with `prefix`, from key `start` on, as `items` does."""
        self._check_open()
        return self._walk(
            sorted(row for row in self._rows.items() if row[0].startswith(prefix) and row[0] >= start)
        )

    def _walk(self, rows: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for row in rows:
            self._check_open()
            yield row

    def write(self, changes: Mapping[bytes, bytes | None], changelog_offset: int) -> None:
        """Set and delete (None) rows and move the offset."""
        self._check_open()
        refuse_backwards(self.name, self._offset, changelog_offset)
        for key, value in changes.items():
            if value is None:  # never `not value`: empty bytes are a row
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        self._offset = changelog_offset

    def ingest(self, keys: Sequence[bytes], values: Sequence[bytes | None], changelog_offset: int) -> None:
        """Do as `write`, for many keys in strictly rising order."""
        self.ingest_runs([(keys, values)], changelog_offset)

    def ingest_runs(self, runs: Iterable[Run], changelog_offset: int) -> None:
        """Do as `ingest`, for keys that come in several runs, each past the one before."""
        changes: dict[bytes, bytes | None] = {}
        last: bytes | None = None
        for keys, values in runs:
            if any(a >= b for a, b in pairwise(keys)) or (keys and last is not None and keys[0] <= last):
                raise ValueError(f"keys to ingest into {self.name} are not in strictly rising order")
            changes.update(zip(keys, values, strict=True))
            last = keys[-1] if keys else last
        self.write(changes, changelog_offset)

    def is_empty(self) -> bool:
        """Whether there are no rows."""
        self._check_open()
        return not self._rows

    def clear(self) -> None:
        """Drop all rows and set the offset to 0."""
        self._check_open()
        self._rows.clear()
        self._offset = 0

    def close(self) -> None:
        """Refuse all further use. Idempotent."""
        self._open = False

    def __len__(self) -> int:
        self._check_open()
        return len(self._rows)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreClosedError(f"the store of table {self.name} is closed; open it anew")


def refuse_backwards(name: str, offset: int, found: int) -> None:
    """Raise HeadwaterError where a store that reaches `offset` is to be set to one before it."""
    if found < offset:
        raise HeadwaterError(
            f"the store of table {name} reaches changelog offset {offset} and can't go back to {found}; "
            "clear it to rebuild the table from its changelog"
        )


@cache
def _process_memory() -> tuple[Any, Any]:
    """Return the process's one write buffer manager and block cache; both live as long as the process."""
    return (
        rocksdict.WriteBufferManager(WRITE_BUFFER_BYTES, False),  # False: flush early, never stall a commit
        rocksdict.Cache(BLOCK_CACHE_BYTES),
    )


def _options() -> Any:
    buffers, block_cache = _process_memory()
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(block_cache)
    blocks.set_block_size(
        16 << 10
    )  # rows are small: files are written and read whole a fifth faster than with 4 KB
    blocks.set_bloom_filter(10, False)  # most misses are first sights of a key
    blocks.set_cache_index_and_filter_blocks(True)  # else they'd grow outside the bound
    blocks.set_format_version(5)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    options.set_write_buffer_manager(buffers)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES // 4)
    options.set_max_write_buffer_number(2)
    options.set_max_background_jobs(2)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    return options
