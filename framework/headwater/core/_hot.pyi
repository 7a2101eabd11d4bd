"""Types of `_hot.c`; what the classes promise is said in `hot`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any

from headwater.core.batch import Headers
from headwater.core.sending import Causes, Lane
from headwater.core.tumbling import Held, Made, TumblingFold, WorkColumns

CURRENT: ContextVar[Any]

class HotFrame:
    row: int
    parts: dict[int, Any]

class HotPart:
    hot: dict[Any, Any]
    keys: list[Any]
    values: list[Any]
    rows: list[int]
    number_kind: type | None

class HotTable:
    number: int
    def __getitem__(self, key: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __delitem__(self, key: Any, /) -> None: ...

class Entries:
    def __init__(self, frame: HotFrame, more: Callable[[], Coroutine[Any, Any, Any]], /) -> None: ...
    def load(self, rows: Sequence[int], values: Sequence[Any], /) -> None: ...
    def clear(self) -> None: ...
    def take(self) -> Any: ...
    def __aiter__(self) -> AsyncIterator[Any]: ...
    def __anext__(self) -> Awaitable[Any]: ...

def last_indices(keys: list[Any], /) -> list[int]: ...
def fold_windows(
    fold: TumblingFold, held: Held, columns: WorkColumns, at: int, watermark: int, made: Made, /
) -> int: ...

class Send:
    row: int
    topic: str
    partition: int | None
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers
    watermark: int | None
    def __init__(
        self,
        row: int,
        topic: str,
        partition: int | None,
        timestamp: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        watermark: int | None = None,
    ) -> None: ...

def stage(
    sends: list[Send],
    topic: str,
    rows: list[int],
    keys: list[bytes],
    values: list[bytes | None],
    times: list[int],
    watermark: int,
    bytes_max: int,
    /,
) -> int: ...
def lay_out(sends: list[Send], at: int, lane: Lane, causes: Causes, counted: list[int], /) -> int: ...
