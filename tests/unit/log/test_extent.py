"""Cutting appends and weighing records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.batch import Append
from headwater.core.errors import ValueRefusedError
from headwater.log import extent
from headwater.log.extent import extents_of, fitting, record_sizes

payloads = st.one_of(st.none(), st.binary(max_size=40))
headers = st.lists(st.tuples(st.text(max_size=3), payloads), max_size=2).map(tuple)


@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), payloads, payloads, headers)), st.integers(1, 400)
)
def test_extents_hold_all_records_in_order_and_weigh_at_most_the_bound(
    records: list[tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]],
    bytes_max: int,
) -> None:
    columns = [list(column) for column in zip(*records, strict=True)] if records else [[], [], [], []]
    found = list(extents_of(Append("t", 3, *columns), bytes_max))
    joined = [
        (time, key, value, part.headers[at] if part.headers else ())
        for part in found
        for at, (time, key, value) in enumerate(zip(part.timestamps, part.keys, part.values, strict=True))
    ]
    assert joined == records
    for part in found:
        assert part.nbytes == sum(record_sizes(part.keys, part.values, part.headers))
        assert len(part) == 1 or 0 < part.nbytes <= bytes_max


def test_fitting_takes_one_record_at_least() -> None:
    assert fitting([50, 1], 10) == (1, 50)
    assert fitting([5, 5, 1], 10) == (2, 10)
    assert fitting([], 10) == (0, 0)


def test_a_record_that_no_log_can_hold_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extent, "RECORD_BYTES_MAX", 1000)
    append = Append("t", 0, [0, 0], [None, None], [b"", b"x" * 2000])
    with pytest.raises(ValueRefusedError, match="t/0 has 2024 bytes, the log takes 1000"):
        list(extents_of(append, 100))
