"""Zip archives: what the directory says is compared with the file before memory is taken for it."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
import torch

from mote_fast.runtime.archives import Archive

NUMBERS = torch.arange(1000, dtype=torch.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/first", NUMBERS.numpy().tobytes())
        archive.writestr("a/second", b"x" * 5000, zipfile.ZIP_DEFLATED)
        archive.writestr("a/empty", b"")
    return path


def test_members_are_read(path: Path) -> None:
    """Numbers, compressed text, and an empty tensor."""
    with Archive(path) as archive:
        assert archive.names == ["a/first", "a/second", "a/empty"]
        assert torch.equal(archive.tensor("a/first", torch.float32, 1000), NUMBERS)
        assert archive.tensor("a/empty", torch.bool, 0).shape == (0,)
        assert archive.read("a/second", 5000) == b"x" * 5000
        assert archive.size("a/second") == 5000


def test_members_are_what_the_caller_expects(path: Path) -> None:
    """Another size, another limit, a compressed tensor and a missing member are refused."""
    with Archive(path) as archive:
        for name, dtype, length, message in (
            ("a/first", torch.float16, 1000, "4000 bytes"),
            ("a/first", torch.float32, 2**60, "4000 bytes"),
            ("a/second", torch.uint8, 5000, "compressed"),
            ("a/third", torch.uint8, 1, "has no 'a/third'"),
        ):
            with pytest.raises(ValueError, match=message):
                archive.tensor(name, dtype, length)
        with pytest.raises(ValueError, match="larger than 4999"):
            archive.read("a/second", 4999)


def at(content: bytes, name: bytes) -> int:
    """Where the directory's entry of a member begins."""
    return content.rindex(name) - 46


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (24, "<I", 2**31 - 1, "contradict"),
        (20, "<I", 2**31 - 1, "contradict"),
        (8, "<H", 1, "encrypted"),
        (42, "<I", 1, "does not lie where"),
        (42, "<I", 2**31, "does not lie where"),
    ],
)
def test_directories_that_lie(path: Path, offset: int, form: str, value: int, message: str) -> None:
    """Sizes, flags and positions of the first member."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, at(content, b"a/first") + offset, value)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Archive(path)


def test_members_do_not_overlap(path: Path) -> None:
    """One part of the file under many names would be a bomb without compression."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, at(content, b"a/second") + 42, 0)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="overlaps"):
        Archive(path)


def test_members_have_names_of_their_own(tmp_path: Path) -> None:
    """Readers disagree on which of two members counts."""
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"2")
    with pytest.raises(ValueError, match=r"'a/data\.pkl' twice"):
        Archive(path)


def test_a_flipped_bit_is_found(path: Path) -> None:
    """PyTorch's reader does not compare checksums."""
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with Archive(path) as archive, pytest.raises(ValueError, match="the checksum does not fit"):
        archive.tensor("a/first", torch.float32, 1000)


def test_a_large_directory_is_not_read(path: Path) -> None:
    """It would be read at once, as large as the file says."""
    content = path.read_bytes()
    end = content.rindex(b"PK\5\6")
    directory, start = struct.unpack("<II", content[end + 12 : end + 20])
    forged = bytearray(content[:start]) + bytes(2**24) + content[start:]
    struct.pack_into("<II", forged, end + 2**24 + 12, directory + 2**24, start)
    path.write_bytes(forged)
    with pytest.raises(ValueError, match="a directory of over"):
        Archive(path)
