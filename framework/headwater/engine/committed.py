"""Tables outside agents: committed rows of the parts a worker holds, and rows as of a time. Read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.core.keys import decode_key, encode_key
from headwater.core.partitioner import partition_of
from headwater.core.windowed import split_window_key
from headwater.engine.history import fold_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.archive.archive import Archive
    from headwater.engine.generation import Generation
    from headwater.log.interface import Log
    from headwater.table.part import TablePart


class CommittedRows:
    """The stores' rows: what the last committed epoch left, without later writes."""

    def __init__(self, table: Any, parts: list[TablePart]) -> None:
        """Take the parts in hand."""
        self._table = table
        self._parts = parts

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the decoded value under a key, or `default`."""
        data = encode_key(key)
        if data is None:
            return default
        home = split_window_key(data).key if self._table.windowed else data
        for part in self._parts:
            if part.local or partition_of(home, part.partitions) == part.partition:
                found = part.store.get_committed(data)
                if found is not None:
                    return self._table.codec.decode(found)
        return default

    def items(self) -> Iterator[tuple[bytes, Any]]:
        """Yield (key bytes, decoded value) in key-byte order within each part."""
        rows = [row for part in self._parts for row in part.store.committed()]
        for key, data in sorted(rows):
            yield key, self._table.codec.decode(data)


def as_of_rows(
    log: Log, archive: Archive, app: str, generation: Generation, table: Any, time_ms: int
) -> dict[Any, Any]:
    """Return {decoded key: decoded value} as the table stood at an instant. Raises AsOfError.

    Of a table of windows: {(decoded key, start, end): decoded value}.
    """
    folded = fold_table(log, archive, app, generation, table.name, as_of=time_ms)
    rows = sorted(row for part in folded.values() for row in part.items())
    if table.windowed:
        windows = ((split_window_key(key), table.codec.decode(data)) for key, data in rows)
        return {
            (decode_key(window.key, table.key_type), window.start, window.end): row.value
            for window, row in windows
        }
    return {decode_key(key, table.key_type): table.codec.decode(data) for key, data in rows}
