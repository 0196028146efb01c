"""Members of tar files: those of any sound archive, and nothing that a header only claims."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from mote_fast.data.shards.tar_members import Member, read_members


def write_tar(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], format: int = tarfile.USTAR_FORMAT) -> None:
    with tarfile.open(path, "w", format=format) as tar:
        for entry, content in entries:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def members_of(path: Path) -> list[tuple[Member, bytes]]:
    with path.open("rb") as file:
        return [(member, member.read()) for member in read_members(file)]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_sound_archives(tmp_path: Path, format: int) -> None:
    """Names and contents are those that tarfile reads; what a PAX header adds is passed over."""
    contents = {"a.mp4": b"", "b.json": b"x" * 511, "c": b"y" * 512, "d.e.f": b"z" * 5000}
    entries = [(tarfile.TarInfo(name), content) for name, content in contents.items()]
    for entry, _ in entries:
        entry.mtime = 0.5
    write_tar(tmp_path / "a.tar", entries, format)
    found = members_of(tmp_path / "a.tar")
    assert {member.name: content for member, content in found} == contents
    assert not any(member.fault for member, _ in found)


@pytest.mark.parametrize(
    ("name", "kind", "fault"),
    [
        ("../../a.mp4", tarfile.REGTYPE, "a path"),
        ("/etc/a.mp4", tarfile.REGTYPE, "a path"),
        ("b\\a.mp4", tarfile.REGTYPE, "a path"),
        ("a.mp4", tarfile.SYMTYPE, "a symbolic link"),
        ("a.mp4", tarfile.LNKTYPE, "a hard link"),
        ("a.mp4", tarfile.CHRTYPE, "a device"),
        ("a.mp4", tarfile.BLKTYPE, "a device"),
        ("a.mp4", tarfile.FIFOTYPE, "a pipe"),
        ("a", tarfile.DIRTYPE, "a folder"),
        ("a.mp4", tarfile.CONTTYPE, "of type b'7'"),
        ("a.mp4", b"Z", "of type b'Z'"),
    ],
)
def test_other_members_have_a_fault(tmp_path: Path, name: str, kind: bytes, fault: str) -> None:
    """A path, link, folder or device is named as what it is, and the member after it is read."""
    odd = tarfile.TarInfo(name)
    odd.type, odd.linkname = kind, "/etc/passwd"
    write_tar(tmp_path / "a.tar", [(odd, b""), (tarfile.TarInfo("next"), b"content")])
    (first, _), (second, content) = members_of(tmp_path / "a.tar")
    assert fault in first.fault
    assert (second.name, second.fault, content) == ("next", "", b"content")


@pytest.mark.parametrize("size", [8**11 - 1, 64 << 30, 2**80, -1, -512])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_sizes_are_those_of_the_file(tmp_path: Path, kind: bytes, size: int) -> None:
    """More data than the file has, or less than none, is damage, and no memory is taken for it."""
    entry = tarfile.TarInfo("a.mp4")
    entry.type, entry.size = kind, size
    path = tmp_path / "a.tar"
    path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(tarfile.TarError, match="bytes"):
        members_of(path)


@pytest.mark.parametrize("cut", [1, 511, 512, 1000, 1024, 1536])
def test_a_cut_file_is_damage(tmp_path: Path, cut: int) -> None:
    """Where it ends before its mark of the end, this is said, also between two members."""
    path = tmp_path / "a.tar"
    write_tar(path, [(tarfile.TarInfo("a"), b"x" * 600), (tarfile.TarInfo("b"), b"")])
    os.truncate(path, cut)
    with pytest.raises(tarfile.TarError):
        members_of(path)
