"""A few hundred of the bits that the long form flips by the ten thousand (I15)."""

from __future__ import annotations

from tests.bit_flips import run


def test_each_flipped_bit_is_found_and_none_is_returned_as_data() -> None:
    counts = run(300, seed=2)
    assert counts["flips"] == 300
    assert {"found as footer", "found as bytes", "found as meta"} <= set(counts), counts
