"""The file system a log lies on: network file systems are refused, because SQLite's WAL needs one machine's memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from headwater.core.errors import LogUnavailableError

NETWORK_TYPES = frozenset(
    {
        "9p", "acfs", "afpfs", "afs", "auristorfs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre",
        "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "webdav",
        "fuse.beegfs", "fuse.ceph", "fuse.cephfs", "fuse.davfs", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys",
        "fuse.grpcfuse", "fuse.juicefs", "fuse.mount.s3", "fuse.mountpoint-s3", "fuse.osxfs", "fuse.rclone", "fuse.s3fs",
        "fuse.seaweedfs", "fuse.smbnetfs", "fuse.sshfs",
    }
)  # fmt: skip


def type_of(path: str, mounts: str) -> str:
    """Return the type of the file system that holds an absolute path, from the text of /proc/self/mounts."""
    best, found = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].encode("ascii", "backslashreplace").decode("unicode_escape")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Later mounts lie over earlier ones of the same place.
        if inside and len(point) >= best:
            best, found = len(point), fields[2]
    return found


def refuse_network(folder: Path) -> None:
    """Raise LogUnavailableError where a folder lies on a network file system."""
    path = os.path.realpath(folder)
    if sys.platform == "linux":
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    else:
        listed = subprocess.run(["mount"], capture_output=True, text=True, check=False).stdout
        mounts = mounts_of_listing(listed)
    found = type_of(path, mounts)
    if found in NETWORK_TYPES:
        raise LogUnavailableError(
            f"the log {path} would lie on a network file system ({found}), where several processes can't share it safely; "
            "choose a folder on a local disk (the archive may be remote)"
        )


def mounts_of_listing(listing: str) -> str:
    """Return what `mount` prints on macOS (device on /place (type, options)) in the form of /proc/self/mounts."""
    lines = []
    for line in listing.splitlines():
        head, _, options = line.rpartition(" (")
        device, _, point = head.partition(" on ")
        if device and point:
            kind = options.split(",")[0].rstrip(")")
            lines.append(
                f"{device.replace(' ', chr(92) + '040')} {point.replace(' ', chr(92) + '040')} {kind}"
            )
    return "\n".join(lines)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it so that they outlive a loss of power."""
    missing = []
    at = folder
    while not at.exists():
        missing.append(at)
        at = at.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            handle = os.open(made.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        raise LogUnavailableError(
            f"can't make the log's folder {folder}: {error}; choose another or free it"
        ) from error
