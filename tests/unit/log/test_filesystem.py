"""Where a log may lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headwater.core.errors import LogUnavailableError
from headwater.log import open_log
from headwater.log.embedded import filesystem
from headwater.log.embedded.filesystem import mounts_of_listing, type_of

MOUNTS = r"""/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/home /mnt/home nfs4 rw 0 0
/dev/vdb /mnt/home/local\040disk xfs rw 0 0
me@host:/x /mnt/over fuse.sshfs rw 0 0
tmpfs /mnt/over tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/log", "ext4"),
        ("/mnt/home/me/log", "nfs4"),
        ("/mnt/home", "nfs4"),
        ("/mnt/homework", "ext4"),
        ("/mnt/home/local disk/log", "xfs"),
        ("/mnt/over/log", "tmpfs"),
    ],
)
def test_the_deepest_and_latest_mount_tells_the_type(path: str, kind: str) -> None:
    assert type_of(path, MOUNTS) == kind


def test_macs_listing_is_read_as_well() -> None:
    listing = (
        "/dev/disk3s1 on / (apfs, local, journaled)\n//me@nas/share on /Volumes/my share (smbfs, nodev)\n"
    )
    mounts = mounts_of_listing(listing)
    assert type_of("/srv/me/log", mounts) == "apfs"
    assert type_of("/Volumes/my share/log", mounts) == "smbfs"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "smb3"])
def test_a_network_file_system_is_refused_and_no_folder_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(filesystem, "type_of", lambda path, mounts: kind)
    with pytest.raises(LogUnavailableError, match=rf"network file system \({kind}\).*local disk"):
        open_log(f"file://{tmp_path}/log")
    assert not (tmp_path / "log").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LogUnavailableError, match="can't make the log's folder"):
        open_log(f"file://{tmp_path}/file/log")
    assert os.listdir(tmp_path) == ["file"]
