"""Blobs: columns to bytes and back, in both encodings."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.log.embedded import blob
from headwater.log.embedded.blob import as_lists, checksum, decode, encode, joined
from headwater.log.extent import Extent

payloads = st.one_of(st.none(), st.binary(max_size=20), st.sampled_from([b"", b"\x00"]))
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
headers = st.lists(st.tuples(names, payloads), max_size=3).map(tuple)
records = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1), payloads, payloads, headers), min_size=1, max_size=20
)


def extent_of(
    entries: list[tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]],
) -> Extent:
    times, keys, values, own = (list(column) for column in zip(*entries, strict=True))
    return Extent("t", 0, times, keys, values, own if any(own) else None, 0)


@pytest.mark.parametrize("small_records", [256, 0])
@given(entries=records)
@settings(max_examples=60)
def test_columns_come_back_as_they_went_in(
    small_records: int,
    entries: list[tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blob, "SMALL_RECORDS", small_records)
        extent = extent_of(entries)
        found = decode(encode(extent))
    assert isinstance(found.values, list if small_records else pa.Array)
    lists = as_lists(found)
    assert (lists.timestamps, lists.keys, lists.values) == (extent.timestamps, extent.keys, extent.values)
    assert (None if found.headers is None else list(found.headers)) == extent.headers
    low, high = len(entries) // 3, len(entries) // 2 + 1
    part = as_lists(found.part(low, high))
    assert part.values == extent.values[low:high]
    assert part.headers is None or list(part.headers) == list(extent.headers or ())[low:high]


def test_many_records_stay_arrow_arrays_until_somebody_asks_for_objects() -> None:
    many = Extent("t", 0, [1] * 300, [b"k"] * 300, [b"v"] * 300, None, 0)
    few = Extent("t", 0, [2], [None], [b""], [(("h", None),)], 0)
    both = joined([decode(encode(many)), decode(encode(many))])
    assert isinstance(both.values, pa.ChunkedArray)
    mixed = joined([decode(encode(many)), decode(encode(few))])
    assert mixed.values == [b"v"] * 300 + [b""]
    assert mixed.headers == [()] * 300 + [(("h", None),)]


def test_headers_are_unpacked_when_they_are_looked_at() -> None:
    own = [(("n", b"%d" % n),) if n % 2 else () for n in range(300)]
    found = decode(encode(Extent("t", 0, [0] * 300, [None] * 300, [b""] * 300, own, 0))).headers
    assert isinstance(found, blob.PackedHeaders)
    assert found[10:13] == own[10:13]
    assert found._headers is None
    assert found[11] == (("n", b"11"),)
    assert (found == own, found == own[1:], len(found)) == (True, False, 300)
    assert list(found[::100]) == own[::100]


def test_bytes_that_are_no_blob_are_refused() -> None:
    with pytest.raises(ValueError, match="begins with"):
        decode(b"\x07abc")
    assert checksum(b"123456789") == 0xE3069283
