"""What Headwater's loggers write to stderr while a worker runs: constant text, fields apart."""

from __future__ import annotations

import logging
import sys

LEVELS = ("debug", "info", "warning", "error")

_KNOWN = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))


class FieldFormatter(logging.Formatter):
    """Writes a record's text, and after it the fields it was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = " ".join(f"{name}={value}" for name, value in vars(record).items() if name not in _KNOWN)
        line = super().format(record)
        return f"{line} {fields}" if fields else line


def show_logs(level: str) -> None:
    """Send log records of Headwater from this level on, and warnings of others, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("headwater").setLevel(level.upper())
