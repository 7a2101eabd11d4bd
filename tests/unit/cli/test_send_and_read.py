"""`send` and `read`: envelopes and Parquet in, envelopes out, byte for byte, all or nothing."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.cli import send as send_module
from headwater.core.partitioner import partition_of
from headwater.log import open_log
from tests.unit.cli.conftest import Run, envelopes


def offsets(run: Run, topic: str) -> int:
    return sum(row["records"] for row in run("topics", "--json").rows if row["topic"] == topic)


def test_one_record_goes_to_its_keys_partition_of_four(run: Run) -> None:
    sent = run("send", "clicks", '{"amount": 3.5}', "--key", "ada", "--json")
    assert sent.rows == [{"topic": "clicks", "sent": 1}]
    [record] = run("read", "clicks", "--json").rows
    assert record["partition"] == partition_of(b"ada", 4)
    assert (record["key"], record["value"], record["offset"]) == ("ada", {"amount": 3.5}, 0)


@pytest.mark.parametrize(
    "text, shown",
    [("null", None), ("hello", "hello"), ('"quoted"', "quoted"), ("18446744073709551617", 1 << 64 | 1)],
)
def test_a_value_is_json_or_else_text_and_null_is_a_tombstone(run: Run, text: str, shown: Any) -> None:
    run("send", "clicks", text, "--key", "k")
    assert run("read", "clicks").rows[0]["value"] == shown


def test_null_keys_go_round_robin_from_partition_0_within_one_call(run: Run) -> None:
    for _ in range(2):
        run(
            "send",
            "t",
            "--file",
            "-",
            "--partitions",
            "3",
            stdin=envelopes(*[{"value": n} for n in range(4)]),
        )
    found = run("read", "t").rows
    assert sorted((r["partition"], r["offset"], r["value"]) for r in found) == [
        (0, 0, 0), (0, 1, 3), (0, 2, 0), (0, 3, 3), (1, 0, 1), (1, 1, 1), (2, 0, 2), (2, 1, 2),
    ]  # fmt: skip


def test_what_read_prints_send_takes_and_the_copy_is_the_same(run: Run, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"key": "k", "value": {"a": 1.5}, "timestamp": 5, "headers": {"h": "v"}},
        {
            "key_b64": "/w==",
            "value_b64": "/v8=",
            "timestamp": -1,
            "headers_b64": [["h", None], ["h", "/w=="]],
        },
        {"key": "", "value": None, "timestamp": (1 << 63) - 1},
        {"key": None, "value": "", "timestamp": "2013-01-01T00:00:00Z"},
    ]
    (tmp_path / "in.jsonl").write_text(envelopes(*records) + "\n")
    assert run("send", "t", "--file", "in.jsonl").out == "sent 4 records to t\n"
    first = run("read", "t", "--json").out
    run("--log", "file://./copy", "send", "t", "--file", "-", stdin=first)
    assert run("--log", "file://./copy", "read", "t", "--raw").out == run("read", "t", "--raw").out
    for row in run("read", "t", "--raw").rows:
        assert row["key_b64"] is not None if "key_b64" in row else row["key"] is None


@settings(max_examples=25)
@given(
    records=st.lists(
        st.tuples(
            st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=40), st.integers(0, 1 << 40)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_bytes_survive_send_and_read_raw(records: list[tuple[bytes | None, bytes | None, int]]) -> None:
    """I13 in small: null and empty are told apart, whatever the bytes."""
    from headwater.cli.envelopes import read_lines
    from headwater.core.envelope import to_envelope

    lines = [
        json.dumps(to_envelope("t", 0, n, time, key, value, (), raw=True)).encode()
        for n, (key, value, time) in enumerate(records)
    ]
    [rows] = list(read_lines(lines, 0))
    assert list(zip(rows.keys, rows.values, rows.timestamps, strict=True)) == records


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 3 is no record envelope"),
        ("[1]", "expected a JSON object, found an array"),
        ('{"key": "k"}', 'neither "value" nor "value_b64"'),
        ('{"value": NaN}', "line 3"),
        ('{"value": 1, "timestamp": "yesterday"}', "can't read the time 'yesterday'"),
        ('{"value": 1, "ts": 1.5}', '"ts" must be whole ms'),
        ('{"value_b64": "?"}', '"value_b64" is not base64'),
        ('{"value": 1, "partition": 7}', "line 3 names partition 7, but topic 't' has 4"),
        ('{"value": 1, "headers": {"a": 1}}', "header 'a' must be text"),
    ],
)
@pytest.mark.parametrize("place", ["file", "stdin"])
def test_a_bad_line_is_named_and_nothing_of_the_file_is_sent(
    run: Run, tmp_path: Path, line: str, message: str, place: str
) -> None:
    text = '{"key": "a", "value": 1}\n\n' + line + '\n{"key": "b", "value": 2}\n'
    (tmp_path / "bad.jsonl").write_text(text)
    source = "bad.jsonl" if place == "file" else "-"
    assert message in run("send", "t", "--file", source, stdin=text, code=2).err
    assert run("topics", "--json").out == ""


def test_a_file_too_large_for_one_transaction_is_looked_at_whole_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_module, "ATOMIC_BYTES_MAX", 1 << 16)
    good = envelopes(*[{"key": str(n), "value": "x" * 200} for n in range(20_000)])
    (tmp_path / "bad.jsonl").write_text(good + "{\n")
    assert "line 20001" in run("send", "t", "--file", "bad.jsonl", code=2).err
    assert run("topics", "--json").out == ""
    (tmp_path / "good.jsonl").write_text(good)
    run("send", "t", "--file", "good.jsonl")
    assert offsets(run, "t") == 20_000
    err = run("send", "s", "--file", "-", stdin=good + "{\n", code=2).err
    assert "records were appended; send the rest after them" in err, (
        "a stream can't be read twice; it says so"
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["send", "t"], "give either a VALUE or --file"),
        (["send", "t", "1", "--file", "x"], "not both"),
        (["send", "t", "--file", "x", "--key", "k"], "--key goes with a VALUE"),
        (["send", "bad topic", "1"], "a topic can't be named 'bad topic'"),
        (["send", "t", "1", "--partitions", "0"], "Invalid value for '--partitions'"),
        (["read", "t", "--from", "tomorrow"], "can't read the time 'tomorrow'"),
        (["read", "t", "--from", "2", "--until", "1"], "is not before --until"),
        (["read", "t"], "no topic 't' in the log"),
    ],
)
def test_misuse_is_told(run: Run, arguments: list[str], message: str) -> None:
    assert message in run(*arguments, code=2).err


def test_a_file_that_is_not_there_is_named(run: Run) -> None:
    assert "nowhere.jsonl" in run("send", "t", "--file", "nowhere.jsonl", code=1).err
    assert "nowhere.parquet" in run("send", "t", "--file", "nowhere.parquet", code=1).err


def test_a_topic_declared_without_a_number_takes_the_one_asked_for(run: Run) -> None:
    run("-A", "apps.clicks", "send", "clicks", "1", "--partitions", "1")
    assert run("topics", "--json").rows[0]["partitions"] == 1
    run("-A", "apps.clicks", "send", "clicks", "2")
    run("-A", "apps.clicks", "--log", "file://./other", "send", "clicks", "1")
    assert run("--log", "file://./other", "topics", "--json").rows[0]["partitions"] == 4


def test_partitions_against_a_topic_or_the_app_name_both_numbers(run: Run, words_app: str) -> None:
    run("send", "t", "1", "--partitions", "3")
    err = run("send", "t", "1", "--partitions", "5", code=2).err
    assert "topic 't' has 3 partitions, --partitions says 5" in err
    err = run("-A", words_app, "send", "words", "1", "--partitions", "5", code=2).err
    assert "declares topic 'words' with 2 partitions, --partitions says 5" in err
    run("-A", words_app, "send", "words", "1")
    assert run("topics", "--json").rows[1]["partitions"] == 2
    run("send", "loud", "1")
    err = run("-A", words_app, "send", "loud", "1", code=2).err
    assert "topic 'loud' has 4 partitions, the app declares 2" in err


def test_an_internal_topic_of_the_app_is_not_sent_to(run: Run, words_app: str) -> None:
    assert (
        "would pass for an internal topic" in run("-A", words_app, "send", "words.live.dead", "1", code=2).err
    )


def flat(tmp_path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), tmp_path / "flat.parquet")
    return "flat.parquet"


def test_flat_parquet_becomes_json_values(run: Run, tmp_path: Path) -> None:
    moment = datetime(2013, 1, 1, 10, 0, 0, 123456)
    path = flat(
        tmp_path,
        offset=[7, 8],
        key=["a", None],
        timestamp=pa.array([moment, moment], pa.timestamp("us")),
        deleted=[False, True],
        at=pa.array([moment, None], pa.timestamp("us")),
        zoned=pa.array(
            [datetime(1969, 12, 31, 23, 59, 59, 999500, UTC), None], pa.timestamp("us", tz="Asia/Tokyo")
        ),
        n=[1, None],
        nested=[{"x": [1.5]}, None],
    )
    run("send", "t", "--file", path, "--partitions", "1")
    first, second = run("read", "t").rows
    assert first["timestamp"] == 1357034400123
    assert first["value"] == {
        "at": "2013-01-01T10:00:00.123Z", "zoned": "1969-12-31T23:59:59.999Z", "n": 1, "nested": {"x": [1.5]},
    }  # fmt: skip
    assert (second["key"], second["value"]) == (None, None)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"x": [1.0, float("nan")]}, "row 2, column 'x': JSON has no NaN"),
        ({"x": [float("inf")]}, "row 1, column 'x': JSON has no NaN and no infinity"),
        ({"x": [b"raw"]}, "column 'x' holds bytes"),
        ({"timestamp": [1.5]}, "column 'timestamp' holds double"),
        ({"timestamp": ["soon"]}, "row 1: can't read the time 'soon'"),
    ],
)
def test_parquet_that_json_cannot_hold_is_refused_and_nothing_is_sent(
    run: Run, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    assert message in run("send", "t", "--file", flat(tmp_path, **columns), code=2).err
    assert run("topics", "--json").out == ""


def test_a_file_that_is_no_parquet_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    assert "can't be read as Parquet" in run("send", "t", "--file", "x.parquet", code=2).err


def test_an_archive_segment_is_sent_as_its_records_were(run: Run, tmp_path: Path) -> None:
    lines = envelopes(
        *[{"key": f"k{n}", "value": n, "timestamp": n, "headers": {"h": "v"}} for n in range(9)]
    )
    run("send", "t", "--file", "-", "--partitions", "2", stdin=lines)
    run("archive", "run", "--until-idle")
    for row in run("archive", "ls", "t", "--json").rows:
        path = next(
            tmp_path.joinpath(".headwater", "archive").rglob(Path(row["path"]).parent.name + "/*.parquet")
        )
        run("--log", "file://./copy", "send", "t", "--file", str(path), "--partitions", "2")
    assert run("--log", "file://./copy", "read", "t").out == run("read", "t").out


def test_a_range_holds_the_records_of_its_times_and_only_those(run: Run) -> None:
    lines = envelopes(*[{"key": "k", "value": n, "timestamp": n} for n in (10, 30, 20, 40, 25)])
    run("send", "t", "--file", "-", stdin=lines)
    assert [r["value"] for r in run("read", "t", "--from", "20", "--until", "40").rows] == [30, 20, 25]
    assert [r["value"] for r in run("read", "t", "--limit", "2").rows] == [10, 30]
    assert run("read", "t", "--from", "41").out == ""
    assert "no partition 4; it has 4: 0 to 3" in run("read", "t", "--partition", "4", code=2).err


def test_partitions_are_merged_by_time_and_none_is_reordered(run: Run) -> None:
    lines = envelopes(
        *[{"partition": p, "value": n, "timestamp": n} for p, n in ((0, 1), (1, 2), (0, 5), (0, 3), (1, 4))]
    )
    run("send", "t", "--file", "-", "--partitions", "2", stdin=lines)
    assert [r["value"] for r in run("read", "t").rows] == [1, 2, 4, 5, 3]


def test_follow_shows_what_comes_later_and_stops_at_its_limit(run: Run, tmp_path: Path) -> None:
    from threading import Thread

    run("send", "t", "1", "--key", "k")

    def later() -> None:
        from headwater.core.batch import Append

        log = open_log(f"file://{tmp_path}/.headwater/log")
        log.append([Append("t", 0, [5], [b"k"], [b"2"])])
        log.close()

    writer = Thread(target=later)
    writer.start()
    found = run("read", "t", "--follow", "--limit", "2").rows
    writer.join()
    assert sorted(row["value"] for row in found) == [1, 2]


def test_raw_shows_bytes_as_base64_always(run: Run) -> None:
    run("send", "t", '"x"', "--key", "k")
    [row] = run("read", "t", "--raw").rows
    assert base64.b64decode(row["key_b64"]) == b"k"
    assert base64.b64decode(row["value_b64"]) == b'"x"'
