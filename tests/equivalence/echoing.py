"""An app that sends each value on and counts by key: for tests of what becomes of outputs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import headwater as hw


def echoing(name: str, *, kafka: dict[str, str] | None = None, **options: Any) -> hw.App:
    """Return it made anew, of one partition; its output topic is kept as `kafka` says."""
    made = hw.App(name, partitions=1, lease_s=6.0, **options)
    source = made.topic(f"{name}-in", key_type=str, value_type=str)
    target = made.topic(f"{name}-out", value_type=str, kafka=kafka or {})
    seen = made.Table("seen", default=int)

    @made.agent(source, sink=[target])
    async def echo(stream: hw.Stream) -> AsyncIterator[str]:
        async for key, value in stream.items():
            seen[key] += 1
            yield value

    return made
