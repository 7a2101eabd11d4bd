"""Single bits flipped anywhere in an archive's files: `verify` finds each, and no reader returns a record that is not the log's.

Long form: `python -m tests.bit_flips --count 10000`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable

from headwater.archive.archive import Archive
from headwater.archive.writer import Archiver
from headwater.core.batch import Append, Batch
from headwater.core.clock import ManualClock
from headwater.core.errors import HandoverGapError, SegmentCorruptError
from headwater.log import open_log


class MemoryStore:
    """Files in a dict, to damage and mend at once."""

    url = "memory"
    remote = False

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        if name in self.files:
            return False
        self.files[name] = bytes(data)
        return True

    def get(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def get_range(self, name: str, start: int, end: int) -> bytes:
        return self.get(name)[start:end]

    def head(self, name: str) -> int | None:
        return len(self.files[name]) if name in self.files else None

    def list_after(self, folder: str, after: str = "") -> list[str]:
        inside = {
            name.removeprefix(f"{folder}/").split("/")[0]
            for name in self.files
            if name.startswith(f"{folder}/")
        }
        return sorted(name for name in inside if name > after)

    def delete(self, name: str) -> None:
        self.files.pop(name, None)


def make_archive(rows: int = 150) -> tuple[MemoryStore, str]:
    """Return an archive with segments of many kinds: small, with headers, of several row groups, a gap."""
    chance = random.Random(1)
    store, log = MemoryStore(), open_log("memory://bit-flips")
    log.create_topic("orders", 1)
    archive = Archive(store, log.log_id)
    archiver = Archiver(log, archive, ["orders"], roll_rows=rows // 3, clock=ManualClock())

    def append(count: int, *, headers: bool) -> None:
        log.append(
            [
                Append(
                    "orders", 0, [chance.randrange(10**12) for _ in range(count)],
                    [chance.choice([None, b"", chance.randbytes(8)]) for _ in range(count)],
                    [chance.choice([None, b"", b"x" * 60, chance.randbytes(60)]) for _ in range(count)],
                    [(("h", chance.randbytes(2)), ("h", None))] * count if headers else None,
                )
            ]
        )  # fmt: skip

    append(rows, headers=False)
    archiver.until_idle()
    append(rows // 3, headers=True)
    archiver.until_idle()
    append(5, headers=False)
    log.trim("orders", 0, log.end_offset("orders", 0) - 2)
    archiver.until_idle()
    # A value of 5 MB stands alone in its row group.
    log.append([Append("orders", 0, [1, 2, 3], [None] * 3, [b"a", bytes(5 << 20), b"c"])])
    archiver.until_idle()
    log_id = log.log_id
    log.close()
    return store, log_id


def _records(batches: Iterable[Batch]) -> list[tuple[object, ...]]:
    return [
        (offset, batch.timestamps[at], batch.keys[at], batch.values[at], batch.headers_at(at))
        for batch in batches
        for at, offset in enumerate(batch.offsets)
    ]


def run(count: int, *, seed: int = 1) -> Counter[str]:
    """Flip `count` bits, one at a time; return what happened. Raises AssertionError naming the bit."""
    chance = random.Random(seed)
    store, log_id = make_archive()
    names = sorted(store.files)
    whole = Archive(store, log_id)
    expected = _records(whole.read("orders", 0, 0, allow_gaps=True))
    assert not [finding for finding in whole.verify() if finding.error]
    counts: Counter[str] = Counter()
    for _ in range(count):
        # By file, not by byte: else most would hit the one with the large value.
        name = chance.choice(names)
        good = store.files[name]
        at, bit = chance.randrange(len(good)), chance.randrange(8)
        if chance.random() < 0.4 and len(good) > 3_000:
            at = chance.randrange(
                len(good) - 3_000, len(good)
            )  # in the footer, which page checksums leave out
        damaged = bytearray(good)
        damaged[at] ^= 1 << bit
        store.files[name] = bytes(damaged)
        where = f"bit {bit} of byte {at} of {len(good)} in {name}"
        archive = Archive(store, log_id)
        try:
            found = [finding for finding in archive.verify() if finding.error]
            assert found, f"verify missed {where}"
            counts[f"found as {found[0].kind}"] += 1
            records: list[tuple[object, ...]] = []
            try:
                for batch in Archive(store, log_id).read("orders", 0, 0, allow_gaps=True):
                    records += _records([batch])
                counts["read: the true records"] += (
                    1  # a byte that reading doesn't need, such as of _meta.json
                )
            except (SegmentCorruptError, HandoverGapError):
                counts["read: refused"] += 1
            assert records == expected[: len(records)], f"wrong records were returned after {where}"
            counts["flips"] += 1
        finally:
            store.files[name] = good
    return counts


def main() -> int:
    """Run the long form and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    print(json.dumps(run(options.count)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
