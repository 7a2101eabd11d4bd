"""Object stores for tests, on loopback: moto as it is, moto made to misbehave over HTTP, and versitygw where it is built."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3

_numbers = itertools.count()
KEY, SECRET = "test", "testtesttest"
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Place:
    """A server with one bucket."""

    endpoint: str
    bucket: str = "bucket"

    @property
    def options(self) -> dict[str, Any]:
        """What an archive needs to be told of it."""
        return {"key": KEY, "secret": SECRET, "endpoint_url": self.endpoint, "timeout_s": 20.0}

    @property
    def environment(self) -> dict[str, str]:
        """The same, as the clients' own environment."""
        return {
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip

    def url(self, prefix: str) -> str:
        return f"s3://{self.bucket}/{prefix}"

    def raw(self) -> Any:
        """A client that has nothing of ours."""
        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )  # fmt: skip

    def objects(self, prefix: str) -> dict[str, bytes]:
        """All objects below a prefix, by that client."""
        client = _raw_client(self)
        found = {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                found[entry["Key"]] = client.get_object(Bucket=self.bucket, Key=entry["Key"])["Body"].read()
        return found


@cache
def _raw_client(place: Place) -> Any:
    # Kept: making one takes fifty milliseconds of processor time.
    return place.raw()


@contextmanager
def moto(wrap: Callable[[Wsgi], Wsgi] = lambda app: app) -> Iterator[Place]:
    """Run moto's S3 in a thread, in memory, with a bucket."""
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    # Not moto's own dispatcher: it looks through all its services' folders at each request.
    app = wrap(create_backend_app("s3"))
    server: Any = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    # Moto's buckets belong to the process, not to the server.
    place = Place(f"http://127.0.0.1:{server.server_port}", f"bucket-{next(_numbers)}")
    try:
        client = place.raw()
        client.create_bucket(Bucket=place.bucket)
        client.close()
        yield place
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ignoring_conditions(app: Wsgi) -> Wsgi:
    """Drop the condition of each request, as servers do that don't know the header."""

    def ignoring(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return app(environ, start)

    return ignoring


def ignoring_conditions_of_multipart_uploads(app: Wsgi) -> Wsgi:
    """Drop the condition at a multipart upload's completion only."""

    def ignoring(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        return app(environ, start)

    return ignoring


def answering_as_minio(app: Wsgi) -> Wsgi:
    """Leave out of a 412 which condition it was, as MinIO does: s3fs then raises OSError(EINVAL)."""

    def answering(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = b"".join(app(environ, start))
        condition = b"<Condition>If-None-Match</Condition>"
        return [body.replace(condition, b" " * len(condition))]

    return answering


@dataclass
class Faults:
    """Makes every n-th request go wrong, by turns in each way; counts what it did."""

    every: int
    seed: int = 1
    counts: Counter[str] = field(default_factory=Counter)
    kinds: tuple[str, ...] = ("slow_down", "error", "lost", "cut", "flip")
    active: bool = False

    def __call__(self, app: Wsgi) -> Wsgi:
        chance, lock = random.Random(self.seed), threading.Lock()
        flipped: set[str] = set()

        def faulty(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            with lock:
                hit = self.active and chance.randrange(self.every) == 0
                kind = chance.choice(self.kinds) if hit else ""
            reads = environ["REQUEST_METHOD"] == "GET"
            if kind in ("cut", "flip") and not (reads and "list-type" not in environ["QUERY_STRING"]):
                kind = "lost"
            if kind == "flip" and environ["PATH_INFO"] in flipped:
                # The same bytes damaged twice on their way is taken for damage where they are kept.
                kind = "cut"
            if kind == "flip":
                flipped.add(environ["PATH_INFO"])
            if kind:
                self.counts[kind] += 1
            if kind in ("slow_down", "error"):
                code, status = {
                    "slow_down": ("SlowDown", "503 Slow Down"),
                    "error": ("InternalError", "500 Internal Server Error"),
                }[kind]
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start(status, [("Content-Type", "application/xml")])
                return [f"<Error><Code>{code}</Code><Message>now not</Message></Error>".encode()]
            if not kind:
                return app(environ, start)
            # All that follows was done by the server; what comes back isn't what it said.
            answer: list[Any] = []

            def kept(status: str, headers: Any, *rest: Any) -> None:
                answer[:] = [status, list(headers), *rest]

            body = b"".join(app(environ, kept))
            if kind == "lost":
                # As when a proxy gives up waiting, or the server dies before it answers.
                start("504 Gateway Timeout", [("Content-Type", "text/html")])
                return [b"<html>gateway timeout</html>"]
            if kind == "cut" and len(body) > 1:
                start(answer[0], answer[1])  # its Content-Length is that of the whole
                return [body[: len(body) // 2]]
            start(answer[0], answer[1])
            if kind == "flip" and len(body) > 1:
                at = chance.randrange(len(body))
                body = body[:at] + bytes([body[at] ^ 1 << chance.randrange(8)]) + body[at + 1 :]
            return [body]

        return faulty


@contextmanager
def versitygw(binary: str) -> Iterator[Place]:
    """Run versitygw over a folder of its own; a file system with extended attributes is needed."""
    with tempfile.TemporaryDirectory(prefix="headwater-versitygw-", dir=Path(binary).parent) as folder:
        (Path(folder) / "bucket").mkdir()
        port = _free_port()
        process = subprocess.Popen(
            [binary, "--quiet", "--port", f"127.0.0.1:{port}", "posix", folder],
            env={**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        place = Place(f"http://127.0.0.1:{port}")
        try:
            _wait_until_up(place.endpoint)
            yield place
        finally:
            process.terminate()
            process.wait(10)


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until_up(endpoint: str) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            urllib.request.urlopen(endpoint, timeout=2).close()
            return
        except urllib.error.HTTPError as answer:
            answer.close()  # any answer is one
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
