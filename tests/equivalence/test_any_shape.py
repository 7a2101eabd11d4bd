"""Apps of any shape over records of any kind: however live was cut and crashed, replay gives the same."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import headwater.engine.session as session_module
from headwater.core.errors import HeadwaterError
from headwater.merge.merge import Merge
from tests.equivalence.place import ROOT
from tests.equivalence.shapes import Shape, make_app, records, shapes
from tests.equivalence.world import Given, World, per_key, sha256

CRASH_POINTS = (
    "session.dispatch",
    "epoch.collect",
    "epoch.before_log",
    "epoch.between_log_and_store",
    "epoch.store_moved",
    "epoch.committed",
)
_numbers = itertools.count()


class Crash(RuntimeError):
    """What a crash is here: the worker ends at a point, and with it all that was not committed."""


def run(
    world: World, *, group: int, changes: int, epoch_s: float, crashes: list[int], name: str | None
) -> None:
    """Run a worker with groups and epochs cut so; it ends at the given passes of crash points, and is started again."""
    left = list(crashes)
    passes = 0

    def point(at: str) -> None:
        nonlocal passes
        if at in CRASH_POINTS and left:
            passes += 1
            if passes >= left[0]:
                left.pop(0)
                passes = 0
                raise Crash(at)

    with ExitStack() as stack:
        stack.enter_context(patch.object(Merge.__init__, "__kwdefaults__", {"records_max": group}))
        stack.enter_context(patch.object(session_module, "CHANGES_MAX", changes))
        stack.enter_context(patch.object(session_module, "point", point))
        for _ in range(len(crashes) + 1):
            try:
                if name is None:
                    world.work(epoch_s=epoch_s)
                else:
                    world.resume(name, epoch_s=epoch_s)
                return
            except HeadwaterError as error:
                if "Crash" not in str(error):
                    raise
    raise AssertionError("the worker did not come to its end")


def everything(world: World, shape: Shape, generation: str) -> dict[str, Any]:
    """Return all that a generation gave, as far as comparisons look at it."""
    return {
        **{table: sha256(world.dump(table, generation)) for table in shape.tables},
        **{topic: per_key(world.outputs(topic, generation)) for topic in shape.outputs},
        "dead": world.dead(generation),
    }


def free_of_order(world: World, shape: Shape, generation: str) -> dict[str, Any]:
    """Return what doesn't hang on the order of arrival across inputs."""
    side = world.outputs("side", generation)
    return {
        **{table: world.dump(table, generation) for table in shape.free_tables},
        "side": {at: Counter(part) for at, part in side.items()},
        "dead": world.dead(generation),
    }


cuts = st.fixed_dictionaries(
    {
        "group": st.integers(1, 12),
        "changes": st.sampled_from([1, 3, 100_000]),
        "epoch_s": st.sampled_from([0.001, 0.05]),
        "crashes": st.lists(st.integers(1, 9), max_size=3),
    }
)
WIDE: dict[str, Any] = {"group": 10_000, "changes": 100_000, "epoch_s": 1.0, "crashes": []}


# A run is no pure function of its example: epochs end by the clock, so shrinking would chase shadows.
@settings(
    phases=[Phase.explicit, Phase.generate],
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    shape=shapes, batches=st.lists(st.tuples(records, records), min_size=1, max_size=3), live=cuts, again=cuts
)
def test_replay_in_live_order_is_live_and_in_time_order_too_where_order_does_not_count(
    tmp_path: Path, shape: Shape, batches: list[tuple[list[Given], list[Given]]], live: Any, again: Any
) -> None:
    """Holds promises 2, 3 and 5. Tables are compared byte for byte, outputs as `diff` does."""
    check(tmp_path, shape, batches, live, again)


FIXED = Shape(2, merged=True, regrouped=True, shared=True, takes=2, repartitions=2, lock_step_fails=True)


def fixed_batches() -> list[tuple[list[Given], list[Given]]]:
    """Return records for FIXED that touch everything in it."""

    def one(at: int) -> Given:
        kind = "fail" if at % 13 == 5 else "plain"
        value = (
            b"\xff" if at % 17 == 3 else b'{"n":%d,"kind":"%s","group":"g%d"}' % (at, kind.encode(), at % 3)
        )
        return Given(None if at % 11 == 7 else b"k%d" % (at % 5), value, 1_000 + at * 37 % 400)

    return [
        ([one(at) for at in range(start, start + 40)], [one(at) for at in range(start + 3, start + 43)])
        for start in (0, 40)
    ]


def fixed_digest(folder: Path) -> str:
    """Return a digest of all that FIXED gives in a replay in time order, whose order is total."""
    world = World(lambda: make_app(FIXED), folder, f"memory://{folder}")
    for left, right in fixed_batches():
        world.send("left", FIXED.partitions, left)
        world.send("right", FIXED.partitions, right)
    world.replay("by_time")
    found = everything(world, FIXED, "by_time")
    text = "\n".join(
        f"{name} {sorted(v.items(), key=repr) if isinstance(v, dict) else v}" for name, v in found.items()
    )
    return sha256([text])


def test_the_hash_seed_of_a_process_changes_nothing(tmp_path: Path) -> None:
    """Holds promise 2: sets and dicts of text iterate otherwise under another seed; results don't."""
    code = (
        "import sys; from pathlib import Path; from tests.equivalence.test_any_shape import fixed_digest; "
        "print(fixed_digest(Path(sys.argv[1])))"
    )
    digests = []
    for seed in ("1", "4242"):
        folder = tmp_path / seed
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join([str(ROOT / "framework"), str(ROOT)]),
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        digests.append(done.stdout)
    assert digests[0] == digests[1]
    check(tmp_path, FIXED, fixed_batches(), {**WIDE, "group": 7, "crashes": [5, 3]}, {**WIDE, "group": 3})


def test_what_chance_gives_does_not_hang_on_where_epochs_end(tmp_path: Path) -> None:
    """Rows are numbered anew in each epoch: a record must not go on drawing where another of its number stopped."""
    shape = Shape(
        1, merged=False, regrouped=False, shared=False, takes=0, repartitions=None, lock_step_fails=False
    )
    # Records without a key draw; those with one change a table, which ends an epoch, and the next one is row 0 again.
    left = [
        Given(b"k" if at % 2 else None, b'{"n":%d,"kind":"plain","group":"g"}' % at, at) for at in range(12)
    ]
    singly = {"group": 1, "changes": 1, "epoch_s": 0.001, "crashes": []}
    check(tmp_path, shape, [(left, [])], {**WIDE, "group": 1}, singly)


def test_records_that_wait_behind_the_end_of_a_channel_outlive_a_crash(tmp_path: Path) -> None:
    """An epoch that ends between reading a channel's END mark and taking its last records lost them at a restart."""
    shape = Shape(
        1, merged=False, regrouped=True, shared=False, takes=0, repartitions=1, lock_step_fails=False
    )
    right = [Given(b"k", b'{"n":%d,"kind":"plain","group":"g"}' % at, at) for at in range(24)]
    singly = {"group": 1, "changes": 1, "epoch_s": 0.001}
    for crash in (40, 80, 120):
        check(tmp_path, shape, [([], right)], {**WIDE, "group": 1}, {**singly, "crashes": [crash, 9]})


def check(
    tmp_path: Path, shape: Shape, batches: list[tuple[list[Given], list[Given]]], live: Any, again: Any
) -> dict[str, Any]:
    """Work batches live, one after the other, and replay them in both orders; return what live gave."""
    folder = tmp_path / f"w{next(_numbers)}"
    folder.mkdir()
    world = World(lambda: make_app(shape), folder, f"memory://{folder}")
    try:
        for number, (left, right) in enumerate(batches):
            world.send("left", shape.partitions, left, home=None)
            world.send("right", shape.partitions, right, home=None)
            run(world, **live, name=None)
            if number == 0:
                # The rest is handed over to: the archive ends here, and the log begins.
                world.archive()
                for topic in ("left", "right"):
                    world.trim(topic)
        expected = everything(world, shape, "live")
        for name, order, how in (
            ("as_live", "live", again),
            ("wide", "live", WIDE),
            ("by_time", "time", again),
        ):
            world.prepare(name, order=order)
            run(world, **how, name=name)
            if order == "live":
                assert everything(world, shape, name) == expected, name
            else:
                assert free_of_order(world, shape, name) == free_of_order(world, shape, "live"), name
                if shape.partitions == 1 and not shape.merged and not shape.regrouped and not shape.shared:
                    assert everything(world, shape, name) == expected, "one input has one order"
        # In time order the order is total: other groups and epochs give the very same.
        world.prepare("by_time_wide")
        run(world, **WIDE, name="by_time_wide")
        assert everything(world, shape, "by_time_wide") == everything(world, shape, "by_time")
        return expected
    finally:
        world.forget()
