"""What is done for every record and every row, compiled where it can be: the agent's next value, and its tables' rows.

An agent's loop costs what Python makes of three steps: asking for the next value, reading a row, setting a row. Written in
Python they take four times a plain loop over a list with a dictionary; in C (`_hot.c`) about as much as that loop. Where the
extension is not there (no compiler when Headwater was installed, another interpreter) the same classes are taken from
`hot_python`; results are the same, and the tests run on both. `HEADWATER_COMPILED=0` asks for Python.

- `CURRENT`: the frame of the agent whose code runs, or None.
- `HotFrame(row, parts)`: the row in hand, and table parts by table number.
- `HotPart(hot, keys, values, rows, number_kind)`: decoded values by key, and the open changes as three columns. `number_kind`
  is the type whose values may be noted as they are; None sends every change the long way.
- `HotTable(number)`: `table[key]` gives what the part in hand holds in `hot`, else calls `_read(key)`. `table[key] = value`
  notes a change of a key in `hot` to a number of `number_kind` between minus and plus `NUMBER_MAX`, else calls
  `_write(key, value)`; `del table[key]` calls `_delete(key)`.
- `Entries(frame, more)`: an asynchronous iterator over what `load(rows, values)` gave it. Each value handed out makes its row
  the frame's. When nothing is left it awaits `more()`, which loads what follows and returns `take()` of it. `clear()` drops
  what is left. Several loops over one go on where the other was left.
- `last_indices(keys)`: where each key of a list comes last, rising.
- `fold_windows(fold, held, columns, at, watermark, made)`: takes records from number `at` on into their windows, closes what
  each one's task watermark makes due, and returns the number of the first record that it leaves: one that is late, fails, has
  no key or an odd time; of that one and those behind it nothing is done. `watermark` is the task's before the first. Windows
  close in the order of end, key and start; one that the open epoch made leaves no change behind.
- `Send(row, topic, partition, timestamp, key, value, headers=(), watermark=None)`: a record that code sent, staged until its
  epoch commits. A timestamp of None is that of the record in hand; `watermark` is the own one that goes with it into an internal
  topic, None: that of the record in hand.
- `stage(sends, topic, rows, keys, values, times, watermark, bytes_max)`: appends sends, and returns the number of the first whose
  key and value are longer than `bytes_max`, before which it stops; how many there are, if none is.
- `lay_out(sends, at, lane, causes, counted)`: appends sends from number `at` on to the columns of the partitions they go to, as
  long as they name the lane's topic, and returns where it stopped. `counted` has the row of the last send before and how many
  that row had sent before it: that is what a record's place among those of one origin is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headwater.core import hot_python
from headwater.core.settings import COMPILED, read_environment

NUMBER_MAX: Final = 1e300
"""Numbers between minus this and this can be encoded without a second look: not NaN, not infinite, not endless."""

is_compiled = False
"""Whether the classes here are those in C."""

if TYPE_CHECKING:
    from headwater.core.hot_python import (
        CURRENT,
        Entries,
        HotFrame,
        HotPart,
        HotTable,
        Send,
        fold_windows,
        last_indices,
        lay_out,
        stage,
    )
else:
    chosen = hot_python
    if read_environment().get(COMPILED) != "0":
        try:
            from headwater.core import _hot as chosen

            is_compiled = True
        except ImportError:
            # Not built here: an installation without a compiler, or a checkout that was never installed.
            is_compiled = False
    CURRENT, Entries = chosen.CURRENT, chosen.Entries
    HotFrame, HotPart, HotTable = chosen.HotFrame, chosen.HotPart, chosen.HotTable
    fold_windows, last_indices = chosen.fold_windows, chosen.last_indices
    Send, lay_out, stage = chosen.Send, chosen.lay_out, chosen.stage

__all__ = [
    "CURRENT",
    "NUMBER_MAX",
    "Entries",
    "HotFrame",
    "HotPart",
    "HotTable",
    "Send",
    "fold_windows",
    "is_compiled",
    "last_indices",
    "lay_out",
    "stage",
]
