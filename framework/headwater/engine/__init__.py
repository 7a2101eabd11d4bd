"""What runs an app: topology, tasks, epochs, generations, workers.

`Engine` is loaded when asked for (PEP 562): commands that only look at topics and generations must not pay for faust.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.engine.engine import Engine as Engine


def __getattr__(name: str) -> Any:
    if name != "Engine":
        raise AttributeError(f"module 'headwater.engine' has no attribute {name!r}")
    from headwater.engine.engine import Engine

    return Engine
