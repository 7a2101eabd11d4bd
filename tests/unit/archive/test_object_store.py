"""The six verbs on S3, with and without obstore; what is refused, and what goes on in spite of throttling and lost replies."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from typing import Any

import moto.s3.models
import pytest

from headwater.archive import fsspec_client, open_archive
from headwater.archive.objects import ObjectStore
from headwater.archive.opening import open_store, probe
from headwater.archive.storage import ArchiveUnavailableError
from headwater.archive.writer import Archiver
from headwater.core.errors import StoreRefusedError
from headwater.log.interface import Log
from tests import object_stores
from tests.object_stores import Faults, Place
from tests.unit.archive.rows import append_numbered, log_rows, rows_of

_numbers = itertools.count()


@pytest.fixture(scope="module")
def s3() -> Iterator[Place]:
    with object_stores.moto() as place:
        yield place


@pytest.fixture(params=[True, False], ids=["obstore", "s3fs"])
def accelerate(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def _open(place: Place, prefix: str, **options: Any) -> ObjectStore:
    store = open_store(place.url(prefix), {**place.options, **options})
    assert isinstance(store, ObjectStore)
    return store


@pytest.fixture
def store(s3: Place, accelerate: bool) -> ObjectStore:
    return _open(s3, f"verbs/{next(_numbers)}", accelerate=accelerate)


def test_the_six_verbs(store: ObjectStore) -> None:
    assert store.put_if_absent("a/b", b"12345")
    assert not store.put_if_absent("a/b", b"other")
    assert store.put_if_absent("a/c", b"")
    assert store.put_if_absent("a/d/e", memoryview(b"x"))
    assert (store.get("a/b"), store.get_range("a/b", 1, 3), store.get_range("a/b", 3, 99)) == (
        b"12345",
        b"23",
        b"45",
    )
    assert (store.head("a/b"), store.head("a/c"), store.head("a/x")) == (5, 0, None)
    assert (store.list_after("a"), store.list_after("a", "b"), store.list_after("x")) == (
        ["b", "c", "d"],
        ["c"],
        [],
    )
    store.delete("a/b")
    store.delete("a/b")
    assert store.list_after("a") == ["c", "d"]
    with pytest.raises(FileNotFoundError):
        store.get("a/b")
    with pytest.raises(FileNotFoundError):
        store.get_range("a/b", 0, 1)


def test_a_listing_of_more_than_a_page_is_whole(store: ObjectStore, s3: Place) -> None:
    bucket, prefix = store.url.removeprefix("s3://").split("/", 1)
    backend: Any = moto.s3.models.s3_backends["123456789012"]["aws"]
    for number in range(1_050):
        # Not by HTTP, which takes moto ten milliseconds each.
        backend.put_object(bucket, f"{prefix}/p/{number:05d}", b"")
    assert len(store.list_after("p")) == 1_050
    assert store.list_after("p", "00009") == [f"{n:05d}" for n in range(10, 1_050)]


def test_of_many_threads_that_create_one_object_exactly_one_wins(s3: Place, accelerate: bool) -> None:
    prefix, barrier, wins = f"race/{next(_numbers)}", threading.Barrier(6), []

    def race(number: int) -> None:
        store = _open(s3, prefix, accelerate=accelerate)
        barrier.wait(20)
        for name in range(8):
            if store.put_if_absent(f"f/{name}", b"%d" % number * 1_000):
                wins.append((name, number))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(name for name, _ in wins) == list(range(8))
    store = _open(s3, prefix)
    assert all(store.get(f"f/{name}") == b"%d" % number * 1_000 for name, number in wins)


def test_an_archive_on_s3_is_the_log(s3: Place, log: Log, accelerate: bool) -> None:
    url = s3.url(f"archive/{next(_numbers)}")
    options = {**s3.options, "accelerate": accelerate}
    archive = open_archive(url, log.log_id, options)
    append_numbered(log, 100)
    archiver = Archiver(log, archive, ["orders"], roll_rows=9)
    assert archiver.until_idle() == 100
    assert rows_of(archive.read("orders", 0, 0)) == log_rows(log)
    append_numbered(log, 20, start=100)
    assert archiver.until_idle() == 20
    reader = open_archive(url, log.log_id, options)
    for made in (archive, reader):
        assert rows_of(made.read("orders", 0, 37, end=111)) == log_rows(log)[37:111]
        assert (made.start("orders", 0), made.end("orders", 0)) == (0, 120)
        assert [made.offset_for_time("orders", 0, 1_000 + n) for n in (0, 55, 119, 120)] == [0, 55, 119, None]
        assert made.offset_after_last_before("orders", 0, 1_050) == 50
        assert list(made.verify()) == []
        made.close()


def test_a_probe_leaves_nothing_behind(store: ObjectStore, s3: Place) -> None:
    probe(store)
    assert s3.objects(store.url.removeprefix(f"s3://{s3.bucket}/")) == {}


def test_a_server_that_ignores_conditions_is_refused_with_the_reason(log: Log, accelerate: bool) -> None:
    with object_stores.moto(object_stores.ignoring_conditions) as place:
        archive = open_archive(place.url("a"), log.log_id, {**place.options, "accelerate": accelerate})
        append_numbered(log, 9)
        with pytest.raises(
            StoreRefusedError, match=r"created True, then True.*ignores the condition.*--single-writer"
        ):
            Archiver(log, archive, ["orders"])
        assert place.objects("") == {}
        alone = Archiver(log, archive, ["orders"], roll_rows=4, single_writer=True)
        assert alone.until_idle() == 9
        assert rows_of(archive.read("orders", 0, 0)) == log_rows(log)
        archive.close()


def test_a_second_archiver_in_single_writer_mode_is_noticed(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    with object_stores.moto(object_stores.ignoring_conditions) as place:
        append_numbered(log, 9)
        rival = Archiver(
            log,
            open_archive(place.url("a"), log.log_id, place.options),
            ["orders"],
            roll_rows=2,
            single_writer=True,
        )

        class Overwritten(ObjectStore):
            def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
                won = super().put_if_absent(name, data)
                if name.endswith(".parquet"):
                    self.put_if_absent = super().put_if_absent  # type: ignore[method-assign]
                    self._client.remove(name)
                    rival.until_idle()
                return won

        archive = open_archive(place.url("a"), log.log_id, place.options)
        assert isinstance(archive.store, ObjectStore)
        archive.store.__class__ = Overwritten
        with caplog.at_level(logging.WARNING):
            mine = Archiver(log, archive, ["orders"], roll_rows=5, single_writer=True)
        assert "single-writer mode" in caplog.text
        with pytest.raises(
            StoreRefusedError, match=r"another's .* is there: the store overwrites, or two archivers ran"
        ):
            mine.until_idle()
        archive.close()


def test_a_412_that_comes_as_einval_is_a_loss_and_no_failure(log: Log) -> None:
    with object_stores.moto(object_stores.answering_as_minio) as place:
        store = _open(place, "a", accelerate=False)
        assert store.put_if_absent("x", b"1")
        with pytest.raises(OSError, match="pre-conditions") as told:
            store._client.create("x", b"2")
        assert not isinstance(told.value, FileExistsError)
        assert not store.put_if_absent("x", b"2")
        probe(store)


@pytest.mark.parametrize("keeps_conditions", [True, False])
def test_large_segments_go_up_in_parts_where_the_condition_holds_for_them_too(
    monkeypatch: pytest.MonkeyPatch,
    keeps_conditions: bool,
    accelerate: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[str] = []

    def counting(app: object_stores.Wsgi) -> object_stores.Wsgi:
        inner = app if keeps_conditions else object_stores.ignoring_conditions_of_multipart_uploads(app)

        def counted(environ: dict[str, Any], start: Any) -> Any:
            calls.append(f"{environ['REQUEST_METHOD']} {environ['QUERY_STRING'].partition('=')[0]}")
            return inner(environ, start)

        return counted

    for module in ("headwater.archive.fsspec_client", "headwater.archive.obstore_client"):
        monkeypatch.setattr(f"{module}.MULTIPART_BYTES", 12 << 20)
    monkeypatch.setattr(fsspec_client, "PART_BYTES", 5 << 20)
    data = bytes(range(256)) * (12 << 12)
    with object_stores.moto(counting) as place:
        store = _open(place, "a", accelerate=accelerate)
        assert store.put_if_absent("p/large", data)
        assert not store.put_if_absent("p/large", data[::-1])
        assert store.get("p/large") == data
        uploads = calls.count("PUT uploadId") + calls.count("PUT partNumber")
        assert (uploads > 3) == keeps_conditions, calls
        assert ("ignores conditions on multipart" in caplog.text) != keeps_conditions
        assert list(place.objects("")) == ["a/p/large"], "probes and parts are gone"
        assert "Uploads" not in place.raw().list_multipart_uploads(Bucket=place.bucket)


def test_throttling_errors_lost_replies_and_damaged_ones_are_survived(log: Log, accelerate: bool) -> None:
    """I24: 0 loss; and what a reply lost had done is not taken for a rival's."""
    faults = Faults(every=4, seed=7)
    with object_stores.moto(faults) as place:
        archive = open_archive(place.url("a"), log.log_id, {**place.options, "accelerate": accelerate})
        append_numbered(log, 150)
        faults.active = True
        archiver = Archiver(log, archive, ["orders"], roll_rows=5)
        assert archiver.until_idle() == 150
        fresh = open_archive(place.url("a"), log.log_id, {**place.options, "accelerate": accelerate})
        assert rows_of(fresh.read("orders", 0, 0)) == log_rows(log)
        faults.active = False
        assert archiver.counts.overtaken == 0
        assert archiver.counts.repeated > 0
        assert set(faults.counts) == set(faults.kinds), faults.counts
        assert list(fresh.verify()) == []
        for made in (archive, fresh):
            made.close()


def test_a_store_that_stays_away_is_reported_as_one_that_may_come_back(accelerate: bool) -> None:
    nowhere = Place("http://127.0.0.1:9")
    store = _open(nowhere, "a", accelerate=accelerate, patience_s=2.0)
    with pytest.raises(
        ArchiveUnavailableError, match=r"can't write s3://[\w-]+/a/x: .*tried \d+ times"
    ) as told:
        store.put_if_absent("x", b"1")
    assert told.value.transient
    assert store.retries > 0


@pytest.mark.parametrize("wrong", [{"bucket": "nosuch"}, {"secret": "wrong"}])
def test_what_no_retry_mends_is_told_at_once(s3: Place, wrong: dict[str, str], accelerate: bool) -> None:
    if "secret" in wrong:
        # moto checks no signatures: a store that says 403.
        def refusing(app: object_stores.Wsgi) -> object_stores.Wsgi:
            def refused(environ: dict[str, Any], start: Any) -> Any:
                if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].count("/") > 1:
                    start("403 Forbidden", [("Content-Type", "application/xml")])
                    return [
                        b"<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature</Message></Error>"
                    ]
                return app(environ, start)

            return refused

        with object_stores.moto(refusing) as place:
            store = _open(place, "a", accelerate=accelerate)
            with pytest.raises(
                ArchiveUnavailableError, match=r"can't write .*request signature.*check the bucket's name"
            ) as told:
                store.put_if_absent("x", b"1")
    else:
        store = _open(Place(s3.endpoint, wrong["bucket"]), "a", accelerate=accelerate)
        with pytest.raises(
            ArchiveUnavailableError, match=r"can't write .*bucket does not exist.*check the bucket's name"
        ) as told:
            store.put_if_absent("x", b"1")
    assert not told.value.transient
    assert store.retries == 0


def test_credentials_and_endpoint_come_from_the_clients_own_environment(
    s3: Place, monkeypatch: pytest.MonkeyPatch, accelerate: bool
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(s3.url(f"env/{next(_numbers)}"), {"accelerate": accelerate})
    assert store.put_if_absent("x", b"1")
    assert store.get("x") == b"1"
