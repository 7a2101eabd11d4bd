"""The cold tier: a log's past as Parquet segments that tile each partition's offsets exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.archive.archive import Archive


def open_archive(url: str, log_id: str) -> Archive:
    """Open the archive of the log named `log_id` at an fsspec URL (a folder); it need not be there yet.

    Raises StoreRefusedError where the storage can't hold an archive.
    """
    # Not at the top: Parquet and fsspec cost 0.15 s, which commands without an archive must not pay.
    from headwater.archive.archive import Archive
    from headwater.archive.storage import open_store

    return Archive(open_store(url), log_id)
