"""Types of `_hot.c`; what the classes promise is said in `hot`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any

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
