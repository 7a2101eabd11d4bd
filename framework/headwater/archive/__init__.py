"""The cold tier: a log's past as Parquet segments that tile each partition's offsets exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.archive.archive import Archive


def open_archive(url: str, log_id: str, options: Mapping[str, Any] | None = None) -> Archive:
    """Open the archive of the log named `log_id` at an fsspec URL (a folder, s3://BUCKET/PREFIX, …); it need not be there yet.

    `options`: the storage's own, such as its endpoint and credentials, where its environment doesn't say. Raises
    StoreRefusedError where it can't be opened.
    """
    # Not at the top: Parquet and fsspec cost 0.15 s, which commands without an archive must not pay.
    from headwater.archive.archive import Archive
    from headwater.archive.opening import open_store

    return Archive(open_store(url, options), log_id)
