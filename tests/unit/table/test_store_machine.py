"""I7: a store is always the fold of its changelog at exactly its own offset, also after kill -9."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headwater.table.store import Store

KEYS = st.sampled_from([b"", b"a", b"b", b"\x00meta", b"\x01", b"\xff", b"0", "é".encode()])
VALUES = st.none() | st.sampled_from([b"", b"0", b"null", b'""', b"x" * 5000]) | st.binary(max_size=8)
CHANGES = st.dictionaries(KEYS, VALUES, max_size=6)
WRITER = Path(__file__).with_name("killed_writer.py")


class StoreMachine(RuleBasedStateMachine):
    """A Store against a dict and an offset."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(self.folder.name, "t", 0)
        self.rows: dict[bytes, bytes] = {}
        self.offset = 0

    def apply(self, changes: dict[bytes, bytes | None]) -> None:
        for key, value in changes.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    @rule(changes=CHANGES, step=st.integers(0, 3))
    def write(self, changes: dict[bytes, bytes | None], step: int) -> None:
        self.offset += step
        self.store.write(changes, self.offset)
        self.apply(changes)

    @rule(changes=CHANGES, step=st.integers(0, 3))
    def ingest(self, changes: dict[bytes, bytes | None], step: int) -> None:
        self.offset += step
        self.store.ingest(sorted(changes), [changes[key] for key in sorted(changes)], self.offset)
        self.apply(changes)

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.rows, self.offset = {}, 0

    @rule()
    def reopen(self) -> None:
        walk = self.store.items()
        next(walk, None)
        self.store.close()
        self.store = Store(self.folder.name, "t", 0)

    @rule(batches=st.lists(st.tuples(CHANGES, st.booleans()), min_size=1, max_size=3))
    def write_in_a_process_that_is_killed(
        self, batches: list[tuple[dict[bytes, bytes | None], bool]]
    ) -> None:
        self.store.close()
        lines = []
        for changes, bulk in batches:
            self.offset += 1
            hexed = [[k.hex(), None if v is None else v.hex()] for k, v in changes.items()]
            lines.append(json.dumps([hexed, self.offset, bulk]))
            self.apply(changes)
        done = subprocess.run(
            [sys.executable, str(WRITER), self.folder.name], input="\n".join(lines), text=True, capture_output=True,
            env={"PYTHONPATH": ":".join(sys.path)}, timeout=60,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        self.store = Store(self.folder.name, "t", 0)

    @invariant()
    def the_store_equals_the_model(self) -> None:
        assert self.store.changelog_offset == self.offset
        assert list(self.store.items()) == sorted(self.rows.items())
        assert self.store.is_empty() == (not self.rows)

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


StoreMachine.TestCase.settings = settings(
    max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
test_a_store_equals_a_dict_also_after_kill = StoreMachine.TestCase


def test_killed_in_the_middle_of_writing_a_store_is_whole_at_its_offset(tmp_path: Path) -> None:
    """I7: whatever instant the kill comes, rows and offset are of one batch; nothing acknowledged is lost."""
    batches = [{b"%d" % key: b"%d" % offset for key in range(200)} for offset in range(1, 2001)]
    lines = "".join(
        json.dumps([[[k.hex(), v.hex()] for k, v in batch.items()], offset, offset % 50 == 0]) + "\n"
        for offset, batch in enumerate(batches, 1)
    )
    (tmp_path / "lines").write_text(lines)
    seen = []
    for kill in range(5):
        folder = tmp_path / str(kill)
        with (tmp_path / "lines").open() as batch_lines, subprocess.Popen(
            [sys.executable, str(WRITER), str(folder)], stdin=batch_lines, stdout=subprocess.PIPE, text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        ) as writer:  # fmt: skip
            assert writer.stdout is not None
            acknowledged = 0
            for _ in range(random.Random(kill).randrange(1, 200)):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
        store = Store(folder, "t", 0)
        assert acknowledged <= store.changelog_offset <= 2000
        assert dict(store.items()) == batches[store.changelog_offset - 1]
        seen.append(store.changelog_offset)
        store.close()
    assert len(set(seen)) > 1, "the kills all came at the same offset"
