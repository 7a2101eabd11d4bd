"""Keys of windowed rows sort by key bytes, then start, and come back; their values carry whether the window is closed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headwater.core.values import codec_for
from headwater.core.windowed import WindowedCodec, split_window_key, window_key, window_prefix

TIMES = st.integers(-(1 << 63), (1 << 63) - 1)
KEYS = st.binary(max_size=4) | st.text("ab\x00\xff", max_size=4).map(str.encode)
WINDOWS = st.tuples(KEYS, TIMES, TIMES)


@given(st.lists(WINDOWS, max_size=8))
def test_row_keys_sort_as_key_start_end_do_and_come_back(windows: list[tuple[bytes, int, int]]) -> None:
    encoded = sorted(window_key(*window) for window in windows)
    assert [split_window_key(data) for data in encoded] == sorted(windows)


@given(WINDOWS, KEYS)
def test_a_prefix_finds_its_own_keys_windows_and_no_others(
    window: tuple[bytes, int, int], key: bytes
) -> None:
    assert window_key(*window).startswith(window_prefix(key)) == (window[0] == key)


@given(st.booleans(), st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_a_windowed_value_comes_back_with_its_flag(final: bool, value: object) -> None:
    codec = WindowedCodec(codec_for(None))
    assert codec.decode(codec.encode((value, final))) == (value, final)
