"""The embedded log: SQLite in WAL mode, for several processes on one machine. The only package that knows sqlite3."""

from __future__ import annotations

from headwater.log.embedded.log import EmbeddedLog

__all__ = ["EmbeddedLog"]
