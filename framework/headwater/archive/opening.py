"""Open an archive's storage by its URL, and try whether it holds what an archive needs; it reads no environment of its own."""

from __future__ import annotations

import logging
import os
import uuid
from typing import TYPE_CHECKING, Any

import fsspec
import fsspec.core

from headwater.archive.fsspec_client import CREATES_ONCE, EXTRAS, FAMILIES, FsspecClient
from headwater.archive.local import LocalStore
from headwater.archive.objects import PATIENCE_S, ObjectStore
from headwater.archive.obstore_client import ObstoreClient, can_accelerate
from headwater.archive.storage import ArchiveUnavailableError, Store, no_crash
from headwater.core.errors import MisuseError, StoreRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headwater.archive.objects import ObjectClient

log = logging.getLogger(__name__)

TIMEOUT_S = 60.0
OWN_OPTIONS = ("timeout_s", "patience_s", "accelerate")


def open_store(
    url: str, options: Mapping[str, Any] | None = None, *, crash: Callable[[str], None] = no_crash
) -> LocalStore | ObjectStore:
    """Return the storage at an fsspec URL; nothing is asked of it yet.

    `options` are fsspec's storage options, and three of ours: `timeout_s` (of one request), `patience_s` (of all tries of one
    verb), `accelerate` (False: without obstore). Raises StoreRefusedError where it can't be opened, MisuseError for a bad option.
    """
    given = dict(options or {})
    timeout_s = _seconds(given.pop("timeout_s", TIMEOUT_S), "timeout_s")
    patience_s = _seconds(given.pop("patience_s", PATIENCE_S), "patience_s")
    accelerate = given.pop("accelerate", True)
    scheme = url.partition("://")[0] if "://" in url else "file"
    family = FAMILIES.get(scheme)
    try:
        if scheme in ("file", "local"):
            filesystem, root = fsspec.core.url_to_fs(url)
            return LocalStore(filesystem, os.path.abspath(root), crash=crash)
        filesystem, root = fsspec.core.url_to_fs(url, **_of_family(family, given, timeout_s))
    except (ValueError, ImportError, TypeError) as error:
        extra = EXTRAS.get(family or "")
        what = (
            f"install it: pip install 'headwater[{extra}]'"
            if extra and isinstance(error, ImportError)
            else "use a folder, such as file://./.headwater/archive, or s3://BUCKET/PREFIX"
        )
        raise StoreRefusedError(f"can't open an archive at {url}: {error}; {what}") from error
    if family is not None and not root.strip("/"):
        raise StoreRefusedError(
            f"can't open an archive at {url}: it names no bucket; write {scheme}://BUCKET/PREFIX"
        )
    plain = FsspecClient(filesystem, root, url, family)
    client: ObjectClient = plain
    if family == "s3":
        # s3fs would try five times by itself; here one place tries again, and knows about lost replies.
        filesystem.retries = 1
        if accelerate and can_accelerate(given):
            client = ObstoreClient(plain, timeout_s=timeout_s)
    return ObjectStore(client, patience_s=patience_s)


def _of_family(family: str | None, given: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Return the storage options for a file system that nobody else shares and that answers from the store alone."""
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if family is None:
        options.pop("use_listings_cache")
    if family == "s3":
        theirs = given.get("config_kwargs", {})
        given = {
            **given,
            "config_kwargs": {
                "connect_timeout": min(5.0, timeout_s),
                "read_timeout": timeout_s,
                "retries": {"max_attempts": 0},
                "max_pool_connections": 32,
                **theirs,
            },
        }
    if family == "gs":
        given = {"timeout": timeout_s, **given}
    return {**options, **given}


def _seconds(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise MisuseError(f"archive option {name!r} is a number of seconds above 0; found {value!r}")
    return float(value)


def probe(store: Store) -> None:
    """Try whether the storage creates a file only where none is; raises StoreRefusedError where it doesn't.

    Some storages take the condition and ignore it: then each of several writers believes it won.
    """
    if isinstance(store, ObjectStore) and not store.creates_once:
        known = ", ".join(f"{protocol}://" for protocol in CREATES_ONCE)
        raise StoreRefusedError(
            f"the storage at {store.url} is refused: it has no create-only-where-none-is that is known to be one step (known: "
            f"folders, {known}), so two archivers would overwrite each other; use one of those, or, where you make sure that "
            "only one archiver ever runs, `headwater archive run --single-writer`"
        )
    name, first_bytes = f".probe-{uuid.uuid4().hex}", uuid.uuid4().bytes
    try:
        first = store.put_if_absent(name, first_bytes)
        if not first:
            # A name nobody else can have: our own first try, whose reply was lost.
            first = store.get(name) == first_bytes
        second = store.put_if_absent(name, uuid.uuid4().bytes)
        found = store.get(name)
    except OSError as error:
        raise StoreRefusedError(
            f"the storage at {store.url} failed the probe: {error}; an archive needs files it can create, link and sync"
        ) from error
    finally:
        _remove(store, name)
    if not first or second or found != first_bytes:
        raise StoreRefusedError(
            f"the storage at {store.url} doesn't create files only where none is (created {first}, then {second}, and then held "
            f"the {'first' if found == first_bytes else 'second'} bytes; expected True, False, the first): it ignores the condition, and "
            "two archivers would overwrite each other; use another storage, or, where you make sure that only one archiver "
            "ever runs, `headwater archive run --single-writer`"
        )


def _remove(store: Store, name: str) -> None:
    try:
        store.delete(name)
    except ArchiveUnavailableError as error:
        # Archives are often written by those who may not delete; sixteen hidden bytes harm nobody.
        log.warning("the probe's object stays", extra={"object": f"{store.url}/{name}", "error": str(error)})
