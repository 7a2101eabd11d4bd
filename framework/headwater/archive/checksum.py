"""CRC-32C of bytes, and of records as columns whatever their chunking; not of files' layout.

Definition of the record checksum. Each of these streams has a CRC-32C, over the whole segment in offset order, all
integers little-endian:
offset int64 · timestamp int64 · key length int32 (-1 for null) · key bytes · value length int32 (-1) · value bytes ·
header count int32 (0 for null) · header name length int32 · name bytes · header value length int32 (-1) · value bytes.
The record checksum is the CRC-32C of the record count (int64) and the eleven CRCs (uint32). So it tells order, null
and empty apart, and doesn't change with batches or row groups; and it costs a pass over memory, nothing a record.
"""

from __future__ import annotations

import struct
from typing import Any

import google_crc32c
import pyarrow as pa
import pyarrow.compute as pc

_STREAMS = 11


def crc32c(data: Any, crc: int = 0) -> int:
    """Return the CRC-32C of bytes or an Arrow buffer, going on from `crc`."""
    # The extension takes read-only buffers only, and an Arrow buffer from the pool may count as writable.
    if isinstance(data, pa.Buffer) and data.is_mutable:
        data = data.to_pybytes()
    return int(google_crc32c.extend(crc, data))


def of_parts(*parts: bytes) -> int:
    """Return the CRC-32C of several pieces as one."""
    crc = 0
    for part in parts:
        crc = crc32c(part, crc)
    return crc


class RecordDigest:
    """The record checksum of columns fed in offset order."""

    def __init__(self) -> None:
        """Start with no record."""
        self._count = 0
        self._crcs = [0] * _STREAMS

    def update(self, batch: pa.RecordBatch) -> None:
        """Take the records of a batch with the columns offset, timestamp, key, value and (if it has any) headers."""
        self._count += batch.num_rows
        self._fixed(0, batch.column("offset"))
        self._fixed(1, batch.column("timestamp"))
        self._binary(2, batch.column("key"))
        self._binary(4, batch.column("value"))
        if "headers" in batch.schema.names:
            headers = batch.column("headers")
            self._fixed(6, pc.fill_null(pc.list_value_length(headers), 0))
            pairs = headers.flatten()
            name, value = pairs.flatten()
            self._binary(7, name)
            self._binary(9, value)
        else:
            self._fixed(6, pa.nulls(batch.num_rows, pa.int32()).fill_null(0))

    def value(self) -> int:
        """Return the checksum of all records so far."""
        return crc32c(struct.pack(f"<q{_STREAMS}I", self._count, *self._crcs))

    def _fixed(self, stream: int, array: pa.Array) -> None:
        width = array.type.bit_width // 8
        buffer = array.buffers()[1]
        if buffer is not None and len(array):
            self._crcs[stream] = crc32c(
                buffer.slice(array.offset * width, len(array) * width), self._crcs[stream]
            )

    def _binary(self, stream: int, array: pa.Array) -> None:
        if not len(array):
            return
        lengths = pc.binary_length(array)
        self._fixed(stream, pc.fill_null(lengths, -1) if array.null_count else lengths)
        total = pc.sum(lengths).as_py() or 0
        if not total:
            return
        start, end = data_span(array)
        if end - start != total:  # bytes under null slots, which belong to no record
            array = array.drop_null()
            start, end = data_span(array)
        self._crcs[stream + 1] = crc32c(array.buffers()[2].slice(start, end - start), self._crcs[stream + 1])


def data_span(array: pa.Array) -> tuple[int, int]:
    """Return where in its data buffer the bytes of a binary or string array lie."""
    offsets = memoryview(array.buffers()[1]).cast("B").cast("i")
    return offsets[array.offset], offsets[array.offset + len(array)]
