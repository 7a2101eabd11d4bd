"""As of T: the fold of all changes with task time up to T, and refusals that say what is kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.errors import AsOfError, RecoveryError
from headwater.table import as_of
from headwater.table.as_of import check_as_of, fold

from .changelogs import Change, batches_of, naive_fold

VALUES = st.none() | st.sampled_from([b"0", b'""', b"", b"null", b"5"])
CHANGES = st.tuples(st.sampled_from([b"", b"a", b"b", b"c"]), VALUES, st.integers(0, 20))
EPOCHS = st.lists(st.lists(CHANGES, min_size=1, max_size=8), max_size=8)


@given(epochs=EPOCHS, until=st.none() | st.integers(-1, 21), chunk_bytes=st.sampled_from([1, 50, 1 << 20]))
@settings(max_examples=80)
def test_a_fold_as_of_t_takes_all_changes_up_to_t_in_order(
    epochs: list[list[Change]], until: int | None, chunk_bytes: int
) -> None:
    """I6 for any T."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(as_of, "CHUNK_BYTES", chunk_bytes)
        rows = fold(batches_of(epochs, hole=1), until)
    assert rows == naive_fold((change for epoch in epochs for change in epoch), until)


def test_t_is_included_and_extremes_hold() -> None:
    epochs: list[list[Change]] = [[(b"a", b"1", -(2**63)), (b"a", b"2", 10), (b"a", b"3", 2**63 - 1)]]
    assert fold(batches_of(epochs), -(2**63)) == {b"a": b"1"}
    assert fold(batches_of(epochs), 9) == {b"a": b"1"}
    assert fold(batches_of(epochs), 10) == {b"a": b"2"}
    assert fold(batches_of(epochs), 2**63 - 1) == {b"a": b"3"}


def test_a_fold_stops_at_its_end_and_refuses_gaps() -> None:
    epochs: list[list[Change]] = [[(b"a", b"1", 1)], [(b"a", b"2", 2)]]
    assert fold(batches_of(epochs), end=1) == {b"a": b"1"}
    with pytest.raises(RecoveryError, match="offsets are missing or come twice"):
        fold([*batches_of(epochs), *batches_of(epochs, start=5)])


JUNE, JULY, AUGUST = 1_370_000_000_000, 1_372_600_000_000, 1_375_300_000_000


@pytest.mark.parametrize(
    ("kept_from", "reached", "at_end", "until"),
    [
        (None, JULY, False, JUNE),
        (None, JULY, False, JULY),
        (None, JULY, True, AUGUST),
        (JUNE, JULY, False, JUNE),
        (None, None, True, JUNE),
    ],
)
def test_an_instant_that_is_kept_and_reached_is_answered(
    kept_from: int | None, reached: int | None, at_end: bool, until: int
) -> None:
    check_as_of("t", 0, until, kept_from=kept_from, reached=reached, at_end=at_end)


@pytest.mark.parametrize(
    ("kept_from", "reached", "at_end", "until", "message"),
    [
        (
            JULY,
            AUGUST,
            False,
            JUNE,
            r"t/3 can't be shown as of 2013-05-31.*from 2013-06-30.*to 2013-07-31.*later time",
        ),
        (JULY, AUGUST, True, JUNE, r"to 2013-07-31T\S+ and later; ask for a later time"),
        (
            None,
            JULY,
            False,
            AUGUST,
            r"not reached yet: what is kept goes from the earliest record to 2013-06-30",
        ),
        (None, None, False, JUNE, r"to nowhere: nothing is processed yet; ask for an earlier time, or wait"),
    ],
)
def test_a_refusal_says_what_is_kept(
    kept_from: int | None, reached: int | None, at_end: bool, until: int, message: str
) -> None:
    with pytest.raises(AsOfError, match=message):
        check_as_of("t", 3, until, kept_from=kept_from, reached=reached, at_end=at_end)
