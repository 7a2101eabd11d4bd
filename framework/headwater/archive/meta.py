"""A topic's `_meta.json`: what its folder holds, written once before the first segment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from headwater.archive import layout
from headwater.archive.checksum import crc32c
from headwater.core.errors import SegmentCorruptError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.archive.storage import Store


def meta_bytes(fields: Mapping[str, object]) -> bytes:
    """Return a topic's `_meta.json`, with a checksum of the rest in it."""
    text = json.dumps(fields, sort_keys=True)
    return (json.dumps({**fields, "crc32c": f"{crc32c(text.encode()):08x}"}, sort_keys=True) + "\n").encode()


def read_meta(store: Store, topic_path: str) -> dict[str, object] | None:
    """Return a topic's `_meta.json`, None where there is none; raises SegmentCorruptError where it is damaged."""
    try:
        return _read_meta(store, topic_path)
    except SegmentCorruptError:
        # A second time, since it may have been damaged on its way only.
        return _read_meta(store, topic_path)


def _read_meta(store: Store, topic_path: str) -> dict[str, object] | None:
    path = f"{topic_path}/{layout.META}"
    try:
        data = store.get(path)
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(data)
        found = fields.pop("crc32c")
        if meta_bytes(fields) == data:
            return dict(fields)
        raise ValueError(f"checksum {found} doesn't fit")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise SegmentCorruptError(
            f"{path} is damaged: {error}; restore it from a copy, or move it away"
        ) from error
