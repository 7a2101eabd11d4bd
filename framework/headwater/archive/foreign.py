"""A Parquet file that somebody brings, as record batches; it needn't be a segment, and nothing of it is checked or kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.core.errors import EnvelopeError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROWS = 65_536


def read_parquet(path: str) -> Iterator[Any]:
    """Yield a file's pyarrow.RecordBatches in order, at least one. Raises EnvelopeError where it is no Parquet file."""
    try:
        with pq.ParquetFile(path) as file:
            yield pa.RecordBatch.from_pylist([], schema=file.schema_arrow)
            yield from file.iter_batches(batch_size=_ROWS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise EnvelopeError(
            f"{path} can't be read as Parquet: {error}; envelopes as JSON lines are read from files not named *.parquet"
        ) from error
