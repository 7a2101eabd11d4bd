"""The calls that an archive makes most, by obstore where it is installed: reads come five times as fast as by s3fs.

It asks the same store with the same credentials as the fsspec client it stands before, and hands it what it doesn't do.
"""

from __future__ import annotations

import importlib.util
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from fsspec.asyn import sync

from headwater.archive.fsspec_client import MULTIPART_BYTES, FsspecClient
from headwater.archive.trouble import Trouble, meaning_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_T = TypeVar("_T")

log = logging.getLogger(__name__)

UNDERSTOOD = frozenset({"key", "secret", "token", "anon", "endpoint_url", "profile", "client_kwargs", "config_kwargs"})  # fmt: skip
"""Storage options that both clients can be given. With any other (encryption, requester pays, …) s3fs does all."""
_UNDERSTOOD_CLIENT = frozenset({"endpoint_url", "region_name"})


def can_accelerate(options: Mapping[str, Any]) -> bool:
    """Tell whether obstore is installed and would do as the fsspec client does under these options of the user's."""
    return (
        importlib.util.find_spec("obstore") is not None
        and UNDERSTOOD.issuperset(options)
        and _UNDERSTOOD_CLIENT.issuperset(options.get("client_kwargs", {}))
        and not options.get("config_kwargs")
    )


class ObstoreClient:
    """Reads, listings and small conditional puts by obstore; the rest by the fsspec client behind it.

    Where obstore is refused what the fsspec client is given (a region, a way to log in), it is no longer asked.
    """

    creates_once = True

    def __init__(self, behind: FsspecClient, *, timeout_s: float) -> None:
        """Connect lazily; `behind` is of s3fs."""
        self._behind = behind
        self._timeout_s = timeout_s
        self.url = behind.url
        self._bucket, key, _ = behind.filesystem.split_path(behind.root)
        self._prefix = f"{key}/" if key else ""
        self._store: Any = None
        self._in_use = True

    def create(self, name: str, data: bytes | memoryview) -> None:
        """Create an object on condition that there is none."""
        import obstore

        if len(data) >= MULTIPART_BYTES:
            # obstore's multipart upload knows no condition.
            self._behind.create(name, data)
            return
        self._either(
            lambda store: obstore.put(
                store, self._prefix + name, bytes(data), mode="create", use_multipart=False
            ),
            lambda: self._behind.create(name, data),
        )

    def replace(self, name: str, data: bytes | memoryview) -> None:
        """Write an object, whether or not there is one."""
        self._behind.replace(name, data)

    def read(self, name: str) -> bytes:
        """Return an object's bytes."""
        import obstore

        return self._either(
            lambda store: bytes(obstore.get(store, self._prefix + name).bytes()),
            lambda: self._behind.read(name),
        )

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes [start, end) of an object."""
        import obstore

        return self._either(
            lambda store: bytes(obstore.get_range(store, self._prefix + name, start=start, end=end)),
            lambda: self._behind.read_range(name, start, end),
        )

    def size(self, name: str) -> int:
        """Return an object's size."""
        import obstore

        return self._either(
            lambda store: int(obstore.head(store, self._prefix + name)["size"]),
            lambda: self._behind.size(name),
        )

    def names(self, folder: str, after: str) -> list[tuple[str, int | None]]:
        """Return names and sizes in a folder."""
        import obstore

        prefix = f"{self._prefix}{folder}/" if folder else self._prefix

        def listed(store: Any) -> list[tuple[str, int | None]]:
            if not after:
                found = obstore.list_with_delimiter(store, prefix)
                folders = [(path.rstrip("/").rpartition("/")[2], None) for path in found["common_prefixes"]]
                return [
                    *folders,
                    *((meta["path"].rpartition("/")[2], meta["size"]) for meta in found["objects"]),
                ]
            pages = obstore.list(store, prefix, offset=prefix + after)
            rest = [(meta["path"].removeprefix(prefix), meta["size"]) for page in pages for meta in page]
            return [(name, size) for name, size in rest if "/" not in name]

        return self._either(listed, lambda: self._behind.names(folder, after))

    def remove(self, name: str) -> None:
        """Remove an object."""
        self._behind.remove(name)

    def _either(self, fast: Callable[[Any], _T], slow: Callable[[], _T]) -> _T:
        if self._in_use:
            try:
                return fast(self._connected())
            except Exception as error:
                if meaning_of(error) is not Trouble.PERMANENT:
                    raise
                refusal = error
            found = slow()
            self._in_use = False
            log.warning(
                "obstore is refused what s3fs is given; going on without it",
                extra={"store": self.url, "error": text_of(refusal)},
            )
            return found
        return slow()

    def _connected(self) -> Any:
        if self._store is None:
            from obstore.store import S3Store

            filesystem = self._behind.filesystem
            client = filesystem.connect() or filesystem.s3
            endpoint = str(client.meta.endpoint_url)
            is_aws = ".amazonaws.com" in endpoint
            timeout = timedelta(seconds=self._timeout_s)
            config: dict[str, Any] = {
                "bucket": self._bucket,
                "region": client.meta.region_name or "us-east-1",
                "virtual_hosted_style_request": is_aws and "." not in self._bucket,
                "client_options": {
                    "allow_http": endpoint.startswith("http://"),
                    "timeout": timeout,
                    "connect_timeout": timedelta(seconds=min(5.0, self._timeout_s)),
                },
                # Retried in one place only: there, own lost replies are reckoned with.
                "retry_config": {"max_retries": 0, "retry_timeout": timeout},
            }
            if not is_aws:
                config["endpoint"] = endpoint
            if filesystem.anon:
                config["skip_signature"] = True
            else:
                config["credential_provider"] = self._credentials
            self._store = S3Store(**config)
        return self._store

    def _credentials(self) -> dict[str, Any]:
        """Return the credentials that s3fs goes by now; asked again when they expire."""
        filesystem = self._behind.filesystem

        async def asked() -> tuple[Any, Any]:
            found = await filesystem.session.get_credentials()
            if found is None:
                return None, None
            return await found.get_frozen_credentials(), getattr(found, "_expiry_time", None)

        if filesystem.key and filesystem.secret:
            return {
                "access_key_id": filesystem.key, "secret_access_key": filesystem.secret, "token": filesystem.token,
                "expires_at": None,
            }  # fmt: skip
        frozen, expires = sync(filesystem.loop, asked)
        if frozen is None:
            raise PermissionError("no credentials in the environment, the profile or the machine's role")
        return {
            "access_key_id": frozen.access_key, "secret_access_key": frozen.secret_key, "token": frozen.token,
            "expires_at": expires,
        }  # fmt: skip
