"""The app that the adversarial set is worked by: values are decoded as JSON, and their own bytes are kept by key bytes."""

from __future__ import annotations

import headwater as hw

app = hw.App("adversarial", partitions=1)
hostile = app.topic("hostile", key_type=bytes)
latest = app.Table("latest", key_type=bytes, value_type=bytes)


@app.agent(hostile)
async def keep(stream: hw.Stream) -> None:
    """Keep the original bytes of the last value of each key; a tombstone deletes, a record without a key has no row."""
    async for event in stream.events():
        if event.raw_key is None:
            continue
        if event.raw_value is None:
            latest.pop(event.raw_key, None)
        else:
            latest[event.raw_key] = event.raw_value
