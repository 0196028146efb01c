"""Files of strangers: what is no small regular file inside its folder is refused at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mote_fast.runtime.reading import check_inside, check_regular, read_small


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    """Up to the limit, also through a link."""
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        assert read_small(tmp_path / name, 5) == b"12345"
        with pytest.raises(OSError, match="larger than 4 bytes"):
            read_small(tmp_path / name, 4)


@pytest.mark.parametrize("kind", ["fifo", "folder", "zero", "missing", "NUL"])
def test_what_is_no_regular_file_is_refused(kind: str, tmp_path: Path) -> None:
    """A FIFO is not waited for, and a device not read."""
    path = tmp_path / "file"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "zero":
            path.symlink_to("/dev/zero")
        case "NUL":
            path = tmp_path / "a\0b"
    for read in (check_regular, lambda path: read_small(path, 9)):
        with pytest.raises(OSError, match=r"not a regular file|not a file name|No such file"):
            read(path)


def test_files_of_the_kernel_are_bounded(tmp_path: Path) -> None:
    """They tell a size of 0."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    assert b"Name:" in read_small("/proc/self/status", 2**20)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_small("/proc/self/status", 10)


def test_links_stay_inside(tmp_path: Path) -> None:
    """Links within the folder are followed, and those of the hub's cache to its own store; no others."""
    folder = tmp_path / "hub" / "snapshots" / "1"
    folder.mkdir(parents=True)
    for blobs in (tmp_path / "hub" / "blobs", tmp_path / "blobs"):
        blobs.mkdir()
        (blobs / "a").touch()
    (folder / "file").touch()
    targets = {"here": "file", "store": "../../blobs/a", "other": "../../../blobs/a", "round": "round"}
    for name, target in targets.items():
        (folder / name).symlink_to(target)
    for name in ("file", "here", "store", "missing"):
        check_inside(folder / name, folder)
    for name in ("other", "round"):
        if name == "round" and os.path.realpath(folder / name) == str(folder / name):
            continue
        with pytest.raises(OSError, match=r"leads out|cannot be followed"):
            check_inside(folder / name, folder)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "store").symlink_to(tmp_path / "blobs" / "a")
    with pytest.raises(OSError, match="leads out"):
        check_inside(tmp_path / "plain" / "store", tmp_path / "plain")
