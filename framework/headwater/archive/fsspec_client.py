"""Plain calls to an object store by way of fsspec; what is known of each file system's conditional create stands here."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

from headwater.archive.trouble import Trouble, meaning_of
from headwater.core.errors import StoreRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

CREATES_ONCE: Mapping[str, str] = {
    "s3": "If-None-Match",
    "gs": "ifGenerationMatch=0",
    "abfs": "If-None-Match",
}
"""Protocols whose `pipe_file(mode="create")` is one conditional request, by the name they go by here.

Not taken on trust for any other: fsspec's own looks and then writes, its local one overwrites, obstore's ignores the mode.
"""
FAMILIES: Mapping[str, str] = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfs", "az": "abfs"}  # fmt: skip
EXTRAS: Mapping[str, str] = {"s3": "s3", "gs": "gcs", "abfs": "azure"}
MULTIPART_BYTES = 64 << 20
"""Larger segments go up in parts, so that a failure costs a part and not the whole; records that don't compress."""
PART_BYTES = 32 << 20


class FsspecClient:
    """One fsspec file system below one prefix; every answer comes from the store itself, none from fsspec's caches."""

    def __init__(self, filesystem: Any, root: str, url: str, family: str | None) -> None:
        """Take a file system of our own (made with skip_instance_cache), the prefix, and the family it is of."""
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self.url = url.rstrip("/")
        self.family = family
        self.creates_once = family in CREATES_ONCE
        self._parts_are_conditional: bool | None = None

    def path(self, name: str) -> str:
        """Return a name's path in the file system."""
        parts = name.split("/")
        # Every name is made by `layout`, which encodes what people choose: only a bug can bring these.
        assert parts[0], name
        assert ".." not in parts, name
        return f"{self.root}/{name}"

    def create(self, name: str, data: bytes | memoryview) -> None:
        """Create an object on condition that there is none."""
        if not self.creates_once:
            raise StoreRefusedError(
                f"no conditional create is known for {self.filesystem.protocol}; this archive can only be read"
            )
        body = bytes(data)
        options: dict[str, Any] = {}
        if self.family == "s3":
            in_parts = len(body) >= MULTIPART_BYTES and self._can_create_in_parts()
            # One request up to the 5 GiB that S3 takes, where the condition on multipart uploads isn't kept.
            options["chunksize"] = PART_BYTES if in_parts else len(body) + 1
        self.filesystem.pipe_file(self.path(name), body, mode="create", **options)

    def replace(self, name: str, data: bytes | memoryview) -> None:
        """Write an object, whether or not there is one."""
        path = self.path(name)
        if not self.creates_once:
            # File-like systems (SFTP, SMB, …) want their folders made first.
            self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.filesystem.pipe_file(path, bytes(data))

    def read(self, name: str) -> bytes:
        """Return an object's bytes."""
        data: bytes = self.filesystem.cat_file(self.path(name))
        return data

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes [start, end) of an object."""
        data: bytes = self.filesystem.cat_file(self.path(name), start=start, end=end)
        return data

    def size(self, name: str) -> int:
        """Return an object's size."""
        self.filesystem.invalidate_cache()
        options = {"refresh": True} if self.family == "s3" else {}
        info = self.filesystem.info(self.path(name), **options)
        if info.get("type") == "directory":
            raise FileNotFoundError(name)
        return int(info["size"])

    def names(self, folder: str, after: str) -> list[tuple[str, int | None]]:
        """Return names and sizes in a folder."""
        self.filesystem.invalidate_cache()
        path = f"{self.root}/{folder}" if folder else self.root
        if self.family == "s3" and after:
            return self._names_after(path, after)
        entries = self.filesystem.ls(path, detail=True)
        return [
            (
                entry["name"].rstrip("/").rpartition("/")[2],
                None if entry.get("type") == "directory" else entry.get("size"),
            )
            for entry in entries
            if entry["name"].rstrip("/") != path
        ]

    def _names_after(self, path: str, after: str) -> list[tuple[str, int | None]]:
        """List only what follows: s3fs lists whole folders, a request for each thousand segments."""
        bucket, key, _ = self.filesystem.split_path(path)
        found: list[tuple[str, int | None]] = []
        start = f"{key}/{after}"
        while True:
            page = self.filesystem.call_s3(
                "list_objects_v2", Bucket=bucket, Prefix=f"{key}/", Delimiter="/", StartAfter=start
            )
            contents = page.get("Contents", [])
            found += [(entry["Key"].rpartition("/")[2], int(entry["Size"])) for entry in contents]
            if not page.get("IsTruncated") or not contents:
                return found
            start = contents[-1]["Key"]

    def remove(self, name: str) -> None:
        """Remove an object."""
        self.filesystem.rm_file(self.path(name))

    def _can_create_in_parts(self) -> bool:
        """Try once whether the store keeps the condition at a multipart upload's completion; some do so on PUT only."""
        if self._parts_are_conditional is None:
            name = f".probe-{uuid.uuid4().hex}"
            self.create(name, b"1")
            try:
                self._parts_are_conditional = not self._completes(name)
            finally:
                self.remove(name)
            if not self._parts_are_conditional:
                log.warning(
                    "the store ignores conditions on multipart uploads; large segments go up in one request",
                    extra={"store": self.url},
                )
        return self._parts_are_conditional

    def _completes(self, name: str) -> bool:
        """Tell whether a conditional multipart upload over an object that is there is completed."""
        call = self.filesystem.call_s3
        bucket, key, _ = self.filesystem.split_path(self.path(name))
        upload = call("create_multipart_upload", Bucket=bucket, Key=key)["UploadId"]
        part = call("upload_part", Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"2")
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        try:
            call(
                "complete_multipart_upload", Bucket=bucket, Key=key, UploadId=upload, MultipartUpload=parts, IfNoneMatch="*",
            )  # fmt: skip
        except Exception as error:
            if meaning_of(error) is not Trouble.TAKEN:
                raise
            call("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)
            return False
        return True
