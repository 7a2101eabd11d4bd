"""A process that writes known batches into a store and is killed at a known one; started by the store's machine."""

from __future__ import annotations

import json
import os
import signal
import sys

from headwater.table.store import Store


def main() -> None:
    """Apply batches from stdin (JSON: [[[key, value or null], …], offset, bulk]); die by SIGKILL after the last."""
    store = Store(sys.argv[1], "t", 0)
    for line in sys.stdin:
        changes, offset, bulk = json.loads(line)
        rows = {bytes.fromhex(key): None if value is None else bytes.fromhex(value) for key, value in changes}
        if bulk:
            store.ingest(sorted(rows), [rows[key] for key in sorted(rows)], offset)
        else:
            store.write(rows, offset)
        sys.stdout.write(f"{offset}\n")
        sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
