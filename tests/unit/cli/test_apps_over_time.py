"""An app's life through the command line: worked live, archived, trimmed, replayed, compared, promoted; and its dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headwater.cli.replay import NICENESS
from headwater.engine.control import redrive_group
from headwater.log import open_log
from tests.unit.cli.conftest import Run, envelopes
from tests.unit.cli.test_main import ROOT, process

pytestmark = pytest.mark.timeout(120)


def words(*texts: str) -> str:
    return envelopes(*[{"key": t, "value": t, "timestamp": 1000 * (n + 1)} for n, t in enumerate(texts)])


@pytest.fixture
def worked(run: Run, words_app: str) -> str:
    """An app that has worked on eight words, one of them bad."""
    run(
        "-A", words_app, "send", "words", "--file", "-", stdin=words("a", "b", "a", "c", "bad", "a", "b", "d")
    )
    run("-A", words_app, "worker", "--until-idle", "-l", "error")
    return words_app


def table(run: Run, *more: str) -> dict[str, Any]:
    return {row["key"]: row["value"] for row in run("table", "dump", "counts", *more).rows}


def test_tables_are_shown_now_and_as_they_were(run: Run, worked: str) -> None:
    assert table(run) == {"a": 3, "b": 2, "c": 1, "d": 1}
    assert table(run, "--as-of", "1970-01-01T00:00:04Z") == {"a": 2, "b": 1, "c": 1}
    assert run("table", "get", "counts", "a").out == "3\n"
    assert run("table", "get", "counts", "a", "--as-of", "3000", "--json").rows == [{"key": "a", "value": 2}]
    assert run("table", "get", "counts", "a", "--raw", "--json").rows == [
        {"key_b64": "YQ==", "value_b64": "Mw=="}
    ]
    assert run("table", "ls", "--json").rows[0]["changelog"] == "words.live.changelog.counts"
    [sha] = run("table", "dump", "counts", "--sha256", "--json").rows
    assert sha["rows"] == 4


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["table", "dump", "count"], 2, "no table 'count'; did you mean 'counts'"),
        (["table", "get", "counts", "zz"], 1, "no row with key 'zz'"),
        (["table", "dump", "counts", "--generation", "liv"], 2, "no generation 'liv'; did you mean 'live'"),
        (["table", "dump", "counts", "--as-of", "noon"], 2, "can't read the time 'noon'"),
        (["diff", "live", "v2"], 2, "no generation 'v2'"),
        (["promote", "v2"], 2, "no generation 'v2'"),
        (["promote", "live"], 2, "what readers see already"),
        (["rollback"], 2, "no promotion to undo"),
        (["discard", "live"], 2, "is what readers see"),
        (["read", "loud", "--generation", "v2"], 2, "no generation 'v2'"),
        (["-A", "words_app", "replay", "--from", "2", "--until", "1"], 2, "is not before --until"),
        (["-A", "words_app", "replay", "--from", "2", "--until", "3", "--follow"], 2, "exclude each other"),
        (["-A", "words_app", "replay", "--from", "1", "--as", "a.b"], 2, "can't be named 'a.b'"),
        (["-A", "words_app", "replay"], 2, "Missing option '--from'"),
        (["-A", "words_app", "worker", "--web", "127.0.0.1:1"], 2, "no web server"),
        (["-A", "words_app", "worker", "--generation", "v7", "--until-idle"], 2, "v7"),
        (["dead", "show", "99"], 2, "no dead letter at"),
        (["archive", "ls", "word"], 2, "no topic 'word' is archived"),
        (["archive", "run", "word", "--until-idle"], 2, "no topic 'word' in the log .*did you mean 'words'"),
        (["archive", "verify", "word"], 2, "no topic 'word' is archived"),
        (["trim", "word"], 2, "no topic 'word' in the log .*did you mean 'words'"),
        (
            ["trim", "words"],
            2,
            r"can't trim what is not archived: words/\d offsets 0\.\.\d+.*nothing was dropped",
        ),
    ],
)
def test_what_can_not_be_done_is_told_and_nothing_changes(
    run: Run, worked: str, arguments: list[str], code: int, message: str
) -> None:
    import re

    before = run("topics", "--all", "--json").out
    err = run(*arguments, code=code).err
    assert re.search(message, err), err
    assert run("topics", "--all", "--json").out == before


def test_topics_say_where_each_range_lies(run: Run, worked: str) -> None:
    def ranges() -> dict[int, tuple[Any, Any, Any]]:
        [row] = [row for row in run("topics", "--json").rows if row["topic"] == "words"]
        assert row["records"] == 8
        return {r["partition"]: (r["archive"], r["log"], r["both"]) for r in row["ranges"]}

    ends = {p: log[1] for p, (_, log, _) in ranges().items()}
    assert [row["topic"] for row in run("topics", "--json").rows] == ["loud", "words"]
    run("archive", "run", "--until-idle", "words")
    assert ranges() == {p: ([0, end], [0, end], [0, end]) for p, end in ends.items()}
    trimmed = run("trim", "words", "--json").rows
    assert {row["partition"]: (row["start"], row["trimmed"]) for row in trimmed} == {
        p: (e, e) for p, e in ends.items()
    }
    assert ranges() == {p: ([0, end], None, None) for p, end in ends.items()}
    assert len(run("read", "words").rows) == 8


def test_trim_before_a_time_refuses_what_is_not_archived_and_drops_nothing(run: Run, worked: str) -> None:
    run("archive", "run", "--until-idle", "words")
    run(
        "-A",
        worked,
        "send",
        "words",
        "--file",
        "-",
        stdin=envelopes({"key": "a", "value": "a", "timestamp": 99_000}),
    )
    before = run("topics", "--json").out
    err = run("trim", "words", "--before", "100000", code=2).err
    assert "can't trim what is not archived: words/" in err
    assert run("topics", "--json").out == before
    dropped = run("trim", "words", "--before", "3000", "--json").rows
    assert sum(row["trimmed"] for row in dropped) == 2
    assert len(run("read", "words").rows) == 9


def test_a_damaged_segment_is_found_named_and_read_as_damaged(run: Run, worked: str, tmp_path: Path) -> None:
    run("archive", "run", "--until-idle", "words", "--json")
    assert run("archive", "verify").out.startswith("the archive is whole")
    run("trim", "words")
    [path] = {row["path"] for row in run("archive", "ls", "words", "--json").rows if row["partition"] == 0}
    file = next(tmp_path.joinpath(".headwater", "archive").rglob(path.rsplit("/", 2)[1] + "/*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    findings = run("archive", "verify", "words", "--json", code=1).rows
    assert {(f["topic"], f["error"]) for f in findings} == {("words", True)}
    assert "is damaged" in run("read", "words", "--partition", "0", code=1).err


def test_a_replay_of_the_same_logic_is_equal_and_can_be_promoted_and_undone(run: Run, worked: str) -> None:
    run("archive", "run", "--until-idle", "-A", worked)
    run("trim", "words")
    replayed = run("-A", worked, "replay", "--from", "earliest", "--as", "v2", "--json")
    assert replayed.rows == [{"generation": "v2", "state": "finished", "from": None, "until": None}]
    assert "replayed 8 of 8 records" in replayed.err
    assert all(not row["differs"] for row in run("diff", "live", "v2", "--json").rows)
    assert {row["kind"] for row in run("diff", "live", "v2", "--json").rows} == {"table", "output"}
    assert run("table", "dump", "counts", "--generation", "v2").out == run("table", "dump", "counts").out
    assert len(run("read", "loud", "--generation", "v2").rows) == len(run("read", "loud").rows) == 7
    promoted = run("promote", "v2", "--json")
    assert "is sent once more" in promoted.err
    assert promoted.rows == [{"promoted": "v2", "previous": "live", "ends": None}]
    assert "is bounded: it ends at" in promoted.err
    assert {row["name"]: row["promoted"] for row in run("generations", "--json").rows} == {
        "live": False,
        "v2": True,
    }
    assert run("rollback", "--json").rows == [{"promoted": "live", "previous": "v2"}]
    assert "v2" in run("discard", "v2").out
    assert [row["name"] for row in run("generations", "--json").rows] == ["live"]
    assert [row["state"] for row in run("generations", "--all", "--json").rows][1] == "discarded"


def test_a_replay_gives_way_unless_it_is_urgent_or_goes_live(run: Run, worked: str, tmp_path: Path) -> None:
    module = tmp_path / "words_app.py"
    text = module.read_text().replace("counts[key] += 1", "counts[key] = os.getpriority(os.PRIO_PROCESS, 0)")
    module.write_text(f"import os\n{text}")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for name, options, wanted in (("way", (), max(own, NICENESS)), ("urgent", ("--urgent",), own)):
        done = process("-A", worked, "replay", "--from", "earliest", "--as", name, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        rows = run("-A", worked, "table", "dump", "counts", "--generation", name, "--json").rows
        assert {row["value"] for row in rows} == {wanted}


def test_a_replay_of_other_logic_differs_and_the_keys_are_named(
    run: Run, worked: str, tmp_path: Path
) -> None:
    module = tmp_path / "words_app.py"
    module.write_text(module.read_text().replace("counts[key] += 1", "counts[key] += 2"))
    done = process("-A", worked, "replay", "--from", "3000", "--until", "7000", "--as", "v2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = run("diff", "live", "v2", "--json", code=3).rows
    [counts] = [row for row in found if row["kind"] == "table"]
    assert counts["keys"] == [
        {"key": "a", "a": 3, "b": 4}, {"key": "b", "a": 2}, {"key": "c", "a": 1, "b": 2}, {"key": "d", "a": 1},
    ]  # fmt: skip
    assert (counts["changed"], counts["only_a"], counts["only_b"]) == (2, 2, 0)
    assert "a: 3 -> 4" in run("diff", "live", "v2", code=3).out
    assert (
        "what is kept goes from"
        in run("table", "get", "counts", "a", "--generation", "v2", "--as-of", "1", code=2).err
    )
    err = run("-A", worked, "replay", "--from", "3000", "--until", "7000", "--as", "v2", code=2).err
    assert "generation 'v2' is finished already" in err


def test_what_the_log_lost_before_it_was_archived_is_a_gap_that_is_listed(
    run: Run, worked: str, tmp_path: Path
) -> None:
    log = open_log(f"file://{tmp_path}/.headwater/log")
    ends = [log.end_offset("words", partition) for partition in (0, 1)]
    for partition, end in enumerate(ends):
        log.trim("words", partition, end - 1)
    log.close()
    err = run("-A", worked, "replay", "--from", "earliest", "--as", "v2").err
    assert "replayed 2 of 2 records" in err, "earliest is the earliest record there is"
    run("archive", "run", "--until-idle", "words")
    gaps = [row for row in run("archive", "ls", "words", "--json").rows if row["gap"]]
    assert [(row["base"], row["next"]) for row in gaps] == [(0, end - 1) for end in ends if end > 1]
    for partition, end in enumerate(ends):
        found = run("read", "words", "--partition", str(partition)).rows
        assert [row["offset"] for row in found] == [end - 1]


def test_dead_letters_are_listed_shown_and_sent_again_once(run: Run, worked: str, tmp_path: Path) -> None:
    [row] = run("dead", "ls", "--json").rows
    assert (row["topic"], row["timestamp"], row["agent"], row["error"], row["message"], row["attempts"]) == (
        "words", 5000, "count", "ValueError", "a bad word", 1,
    )  # fmt: skip
    assert not row["redriven"]
    [shown] = run("dead", "show", "0", "--raw", "--json").rows
    assert (shown["key_b64"], shown["value_b64"]) == ("YmFk", "ImJhZCI=")
    assert shown["dead"]["dead_offset"] == 0
    assert run("dead", "redrive", "--json").rows == [{"redriven": 1, "left": 0, "generation": "live"}]
    assert run("dead", "redrive", "--json").rows == [{"redriven": 0, "left": 0, "generation": "live"}]
    assert run("dead", "ls", "--json").rows[0]["redriven"]
    again = [r for r in run("read", "words", "--raw").rows if r["key_b64"] == "YmFk"]
    assert len(again) == 2
    assert {(r["timestamp"], r["value_b64"]) for r in again} == {(5000, "ImJhZCI=")}
    # The second is for the agent that failed, and tells other apps and generations to leave it.
    targets = [r["headers"].get("hw.to") for r in run("read", "words").rows if r["key"] == "bad"]
    assert targets == [None, "words.live/count"]
    module = tmp_path / "words_app.py"
    module.write_text(module.read_text().replace('word == "bad"', 'word == "worse"'))
    done = process("-A", worked, "worker", "--until-idle", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert table(run)["bad"] == 1
    assert len(run("dead", "ls", "--json").rows) == 1


def test_only_one_redrive_works_at_a_time(run: Run, worked: str, tmp_path: Path) -> None:
    log = open_log(f"file://{tmp_path}/.headwater/log")
    member = log.join(redrive_group("words", "live"), 1)
    assert member.heartbeat().owned == {0}
    assert "another `dead redrive` is at work" in run("dead", "redrive", code=1).err
    member.leave()
    log.close()
    assert run("dead", "redrive", "--json").rows[0]["redriven"] == 1


def test_dead_letters_of_a_generation_that_is_not_promoted_are_not_sent_again(run: Run, worked: str) -> None:
    run("-A", worked, "replay", "--from", "earliest", "--as", "v2")
    assert len(run("dead", "ls", "--generation", "v2", "--json").rows) == 1
    assert "can't be sent again" in run("dead", "redrive", "--generation", "v2", code=2).err


def test_reset_deletes_the_stores_and_a_worker_builds_them_again(
    run: Run, worked: str, tmp_path: Path
) -> None:
    before = table(run)
    [row] = run("reset", "--json").rows
    assert row["app"] == "words"
    assert row["deleted"]
    assert not tmp_path.joinpath(".headwater", "state", "words").exists()
    run(
        "-A",
        worked,
        "send",
        "words",
        "--file",
        "-",
        stdin=envelopes({"key": "a", "value": "a", "timestamp": 9000}),
    )
    run("-A", worked, "worker", "--until-idle", "-l", "error")
    assert table(run) == before | {"a": before["a"] + 1}


def test_a_worker_stops_on_sigterm_and_ends_with_0(worked: str, run: Run, tmp_path: Path) -> None:
    import os

    paths = os.pathsep.join([str(ROOT / "framework"), str(ROOT)])
    with subprocess.Popen(
        [sys.executable, "-m", "headwater", "-A", worked, "worker"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True,
    ) as worker:  # fmt: skip
        assert worker.stderr is not None
        for line in worker.stderr:
            if "tasks taken" in line:
                break
        assert "stop them first" in run("reset", code=2).err
        worker.send_signal(signal.SIGTERM)
        worker.stderr.read()
        assert worker.wait(timeout=15) == 0


def test_archive_run_goes_on_until_it_is_stopped(worked: str, run: Run, tmp_path: Path) -> None:
    import os

    paths = os.pathsep.join([str(ROOT / "framework"), str(ROOT)])
    with subprocess.Popen(
        [sys.executable, "-m", "headwater", "-A", worked, "--json", "archive", "run"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as archiver:  # fmt: skip
        assert archiver.stderr is not None
        assert "archiving" in archiver.stderr.readline()
        archiver.send_signal(signal.SIGTERM)
        out, _ = archiver.communicate(timeout=30)
        assert archiver.returncode == 0
    assert json.loads(out)["records"] > 8
    archived = {row["topic"] for row in run("archive", "ls", "--json").rows}
    assert {"words", "loud", "words.control", "words.live.changelog.counts"} <= archived


def test_a_result_that_failed_further_on_is_left_and_others_are_sent_again(
    run: Run, words_app: str, tmp_path: Path
) -> None:
    """Sent to the topic it had been made of, it would have been nobody's: neither the operator's nor the agent's."""
    with (tmp_path / f"{words_app}.py").open("a") as file:
        file.write(
            "once = words.stream().dedupe(name='once')\n\n\n"
            "@app.agent(once)\nasync def refuse(stream):\n"
            "    async for word in stream:\n        raise ValueError('no')\n"
        )
    run("-A", words_app, "send", "words", "--file", "-", stdin=words("a", "bad"))
    run("-A", words_app, "worker", "--until-idle", "-l", "error")
    rows = run("-A", words_app, "dead", "ls", "--json").rows
    assert sorted(row["agent"] for row in rows) == ["count", "refuse", "refuse"]
    assert run("-A", words_app, "dead", "redrive", "--json").rows == [
        {"redriven": 1, "left": 2, "generation": "live"}
    ]
    assert "left 2" in run("-A", words_app, "dead", "redrive").out
    redriven = {row["agent"]: row["redriven"] for row in run("-A", words_app, "dead", "ls", "--json").rows}
    assert redriven == {"count": True, "refuse": False}
