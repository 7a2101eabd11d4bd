"""Settings, their order and their secrets; crash points."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.core import crash
from headwater.core.clock import SYSTEM_CLOCK, ManualClock
from headwater.core.crash import parse_deeds
from headwater.core.errors import HeadwaterError, MisuseError, did_you_mean
from headwater.core.settings import DEFAULTS, Settings, hide_secrets, read_environment


def test_option_goes_before_environment_before_app_before_default() -> None:
    option = {"log": "memory://option", "archive": None}
    app: dict[str, str | None] = {"log": "memory://app", "archive": "file:///app", "state": "app"}
    environment = {
        "HEADWATER_LOG": "memory://env",
        "HEADWATER_ARCHIVE": "file:///env",
        "LOG": "x",
        "HEADWATER_STATE": "",
    }
    assert Settings.resolve({}, {}, {}) == Settings()
    assert Settings.resolve({}, app, {}) == Settings("memory://app", "file:///app", "app")
    assert Settings.resolve({}, app, environment) == Settings("memory://env", "file:///env", "app")
    settings = Settings.resolve(option, app, environment)
    assert settings == Settings("memory://option", "file:///env", "app")
    assert [(item.name, item.origin) for item in settings.shown()] == [
        ("log", "option --log"), ("archive", "environment HEADWATER_ARCHIVE"), ("state", "App(state=…)"),
    ]  # fmt: skip
    assert {item.origin for item in Settings.resolve({}, {}, {}).shown()} == {"default"}


def test_the_defaults_are_those_of_the_command_line_page() -> None:
    assert dict(DEFAULTS) == {
        "log": "file://./.headwater/log", "archive": "file://./.headwater/archive", "state": "./.headwater/state",
    }  # fmt: skip


def test_unknown_and_empty_settings_are_refused() -> None:
    with pytest.raises(MisuseError, match="no keyword of App 'lgo'; did you mean 'log'"):
        Settings.resolve({}, {"lgo": "x"}, {})
    with pytest.raises(MisuseError, match="option --log is empty"):
        Settings.resolve({"log": " "}, {}, {})


def test_only_variables_of_this_package_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "kafka://x")
    monkeypatch.setenv("HEADWATER_LOG", "memory://env")
    assert "BROKER_URL" not in read_environment()
    assert Settings.resolve().log == "memory://env"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("log", "file://./.headwater/log", "file://./.headwater/log"),
        ("log", "kafka://localhost:9092", "kafka://localhost:9092"),
        ("log", "kafka://me:pa@ss@host:9092/x", "kafka://***@host:9092/x"),
        ("archive", "s3://bucket/a?region=eu&secret_key=abc", "s3://bucket/a?region=eu&secret_key=***"),
        ("archive", "s3://key@bucket/a", "s3://***@bucket/a"),
        ("sasl_password", "abc", "***"),
        ("API_TOKEN", "abc", "***"),
        ("client_secret", "", "***"),
        ("broken", "http://[me:pw@x", "***"),
        ("epoch", 0.1, "0.1"),
        ("options", {"region": "eu", "secret": "abc"}, "region=eu, secret=***"),
    ],
)
def test_secrets_are_hidden_and_the_rest_is_as_written(name: str, value: object, shown: str) -> None:
    assert hide_secrets(name, value) == shown


def test_a_url_with_a_password_is_used_whole_and_shown_without() -> None:
    settings = Settings.resolve({"log": "kafka://me:pw@host:1"}, {}, {})
    assert settings.log == "kafka://me:pw@host:1"
    assert settings.shown()[0].value == "kafka://***@host:1"


def test_kill_lists_are_read_and_malformed_ones_refused() -> None:
    assert parse_deeds("log.commit:3, archive.link:1=stop,*:40=kill") == {
        ("log.commit", 3): signal.SIGKILL,
        ("archive.link", 1): signal.SIGSTOP,
        ("*", 40): signal.SIGKILL,
    }
    for text in ("log.commit", "log.commit:", ":1", "a:0", "a:-1", "a:x", "a:1,", "a:²", "a:1=pause"):
        with pytest.raises(MisuseError, match="write name:n"):
            parse_deeds(text)


CRASHING = """
from headwater.core import crash
for at in range(5):
    crash.point("first")
    crash.point("second")
print("survived")
"""


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    path = ":".join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-c", CRASHING], capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": path, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kills", "passed"),
    [
        ("second:2", ["first", "second"] * 2),
        ("first:3,second:1", ["first", "second"]),
        ("*:5", [*["first", "second"] * 2, "first"]),
    ],
)
def test_a_process_dies_at_the_pass_named_and_its_passes_are_counted(
    tmp_path: Path, kills: str, passed: list[str]
) -> None:
    counts = tmp_path / "counts"
    done = run({"HEADWATER_CRASH": kills, "HEADWATER_CRASH_COUNT": str(counts)})
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""
    assert counts.read_text().split() == passed


CRASHING_IN_A_THREAD = """
import os, threading, time
from headwater.core import crash

def busy():
    while True:
        sum(range(1000))

def stop():
    crash.point("first")
    os.write(1, b"went on")

for work in (busy, busy, stop):
    threading.Thread(target=work, daemon=True).start()
time.sleep(60)
"""


def test_the_thread_that_passes_a_point_stops_there_whatever_others_do() -> None:
    """A stop sent to the process would be taken by its first thread, and the one at the point goes on for a while."""
    path = ":".join(filter(None, sys.path))
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", CRASHING_IN_A_THREAD], stdout=subprocess.PIPE,
            env={"PYTHONPATH": path, "HEADWATER_CRASH": "first:1=stop"},
        ) as process:  # fmt: skip
            try:
                _, status = os.waitpid(process.pid, os.WUNTRACED)
                assert os.WIFSTOPPED(status)
            finally:
                process.kill()
            assert process.communicate()[0] == b""


def test_a_process_stops_at_the_pass_named_and_goes_on_when_told() -> None:
    """A stopped process is a zombie in the making: nothing of it is lost, it only sleeps."""
    path = ":".join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, "-c", CRASHING], stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": path, "HEADWATER_CRASH": "second:2=stop,second:3=stop"},
    ) as process:  # fmt: skip
        for _ in range(2):
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.read() == "survived\n"
        assert process.wait(30) == 0


def test_without_being_told_a_process_passes_all_points(tmp_path: Path) -> None:
    assert run({}).stdout == "survived\n"
    counts = tmp_path / "counts"
    assert run({"HEADWATER_CRASH_COUNT": str(counts)}).stdout == "survived\n"
    assert run({"HEADWATER_CRASH": "second:6"}).stdout == "survived\n"
    assert counts.read_text().split() == ["first", "second"] * 5
    crash.point("here")  # this process has no plan, and lives on


def test_a_malformed_plan_is_said_at_the_first_point() -> None:
    done = run({"HEADWATER_CRASH": "nonsense"})
    assert done.returncode == 1
    assert "write name:n" in done.stderr


def test_near_names_are_offered_and_a_clock_for_tests_moves_only_when_told() -> None:
    assert did_you_mean("tota", ["totals", "status"]) == "; did you mean 'totals'?"
    assert did_you_mean("zzz", ["b", "a"]) == "; there are: a, b"
    assert did_you_mean("zzz", []) == ""
    assert issubclass(MisuseError, HeadwaterError)
    clock = ManualClock(1000)
    clock.advance(1.5)
    assert (clock.now_ms(), clock.monotonic_s()) == (2500, 2.5)
    assert SYSTEM_CLOCK.now_ms() > 1_600_000_000_000
    assert SYSTEM_CLOCK.monotonic_s() <= SYSTEM_CLOCK.monotonic_s()


def test_kafkas_settings_come_from_variables_a_file_and_the_app_in_this_order(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("# ours\nfetch.min.bytes = 7\nsasl.password=hush\nssl.ca.location=/ca=1\n\n")
    settings = Settings.resolve(
        app={},
        environment={"HEADWATER_KAFKA_CONFIG": str(file), "HEADWATER_KAFKA_FETCH_MIN_BYTES": "9"},
        kafka={"fetch.min.bytes": 1, "check.crcs": False, "client.rack": "a"},
    )
    assert settings.kafka == {
        "fetch.min.bytes": "9",
        "check.crcs": "false",
        "client.rack": "a",
        "sasl.password": "hush",
        "ssl.ca.location": "/ca=1",
    }
    shown = {setting.name: (setting.value, setting.origin) for setting in settings.shown()}
    assert shown["kafka.fetch.min.bytes"] == ("9", "environment HEADWATER_KAFKA_FETCH_MIN_BYTES")
    assert shown["kafka.sasl.password"] == ("***", f"file {file}")
    assert shown["kafka.client.rack"] == ("a", "App(kafka=…)")


@pytest.mark.parametrize(
    "name",
    ["sasl.password", "ssl.key.pem", "ssl.key.password", "ssl.keystore.password", "sasl.oauthbearer.config"],
)
def test_kafkas_secrets_are_hidden(name: str) -> None:
    assert hide_secrets(name, "swordfish") == "***"


def test_a_file_of_kafkas_settings_that_can_not_be_read_is_refused_without_showing_it(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("swordfish\n")
    for path, said in ((file, "line 1"), (tmp_path / "none", "can't be read")):
        with pytest.raises(MisuseError, match=said) as refused:
            Settings.resolve(environment={"HEADWATER_KAFKA_CONFIG": str(path)})
        assert "swordfish" not in str(refused.value)


def test_archive_options_of_the_environment_are_added_to_the_apps_and_win_name_by_name() -> None:
    app = {"endpoint_url": "http://app", "anon": True}
    environment = {
        "HEADWATER_ARCHIVE_OPTIONS": '{"endpoint_url": "http://env", "key": "AKIA", "account_key": "s3cret"}'
    }
    settings = Settings.resolve({}, {}, environment, archive_options=app)
    assert settings.archive_options == {
        "endpoint_url": "http://env", "anon": True, "key": "AKIA", "account_key": "s3cret",
    }  # fmt: skip
    shown = next(item for item in settings.shown() if item.name == "archive_options")
    assert shown.origin == "environment HEADWATER_ARCHIVE_OPTIONS and App(archive_options=…)"
    assert shown.value == "endpoint_url=http://env, anon=True, key=***, account_key=***"
    with pytest.raises(MisuseError, match="can't be read as a JSON object") as told:
        Settings.resolve({}, {}, {"HEADWATER_ARCHIVE_OPTIONS": '["s3cret"]'})
    assert "s3cret" not in str(told.value)
