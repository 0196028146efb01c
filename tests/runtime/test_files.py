"""Staged files: complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.errors import ConfigError
from mote_fast.runtime.files import (
    check_file,
    make_folder,
    staged,
    staged_folder,
    write_all,
    write_bytes,
    write_texts,
)
from tests.full_disk import files_of_at_most


def test_staged_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    """An error in the block leaves only the earlier file."""
    target = tmp_path / "below" / "file"
    with staged(target) as part:
        part.write_text("first")

    def fail_half_way() -> None:
        with staged(target) as part:
            part.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert target.read_text() == "first"
    assert list(target.parent.iterdir()) == [target]


def test_staging_names_what_cannot_be_written(tmp_path: Path) -> None:
    """A full disk or a file in place of a folder gives an error of one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="below: cannot be written"), staged(tmp_path / "file" / "below"):
        pass


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """If one file exists, no file is written; force replaces it."""
    folder = tmp_path / "new" / "folder"
    write_texts(folder, {"a.txt": "1\n"})
    with pytest.raises(ConfigError, match=r"a\.txt: exists; give --force"):
        write_texts(folder, {"b.txt": "2\n", "a.txt": "2\n"})
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt"]
    # An interrupted call left the first of two.
    write_texts(folder, {"a.txt": "1\n", "c.txt": ""})
    with pytest.raises(ConfigError, match=r"c\.txt: exists"):
        write_texts(folder, {"a.txt": "1\n", "c.txt": "3\n"})
    write_texts(folder, {"b.txt": "2\n", "a.txt": "é\n"}, force=True)
    assert (folder / "a.txt").read_bytes() == "é\n".encode()


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    """An error in the middle of a write keeps the earlier file, and leaves no remains."""
    write_texts(tmp_path, {"a.txt": "1\n"})
    with pytest.raises(UnicodeEncodeError):
        write_texts(tmp_path, {"a.txt": "2 \udc80\n"}, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "1\n"


def test_output_must_be_a_folder(tmp_path: Path) -> None:
    """The error names a file in place of the folder."""
    (tmp_path / "out").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="out: is not a folder"):
        write_texts(tmp_path / "out", {"a.txt": ""})


def test_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the earlier file and nothing else."""
    target = tmp_path / "result.json"
    write_bytes(target, b"earlier")

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match=r"result\.json.*disk full"):
        write_bytes(target, b"later")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert target.read_bytes() == b"earlier"


def test_output_must_be_writable(tmp_path: Path) -> None:
    """A file in place of the folder raises before any work is done."""
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="--output"):
        make_folder(tmp_path / "out")


def test_names_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    """The name of what is unfinished is longer than its target's; it is shortened where that would be too long."""
    for name in ("n" * 255, "é" * 127, "n" * 249, "n" * 250):
        with staged(tmp_path / name) as part:
            part.write_text(name)
        assert (tmp_path / name).read_text() == name
        (tmp_path / name).unlink()
        with staged_folder(tmp_path / name) as folder:
            (folder / "file").touch()
        assert [path.name for path in (tmp_path / name).iterdir()] == ["file"]
        (tmp_path / name / "file").unlink()
        (tmp_path / name).rmdir()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="cannot be written"), staged(tmp_path / ("n" * 256)):
        pass


def test_outputs_are_checked_before_the_work(tmp_path: Path) -> None:
    """A folder that takes no files, a folder or device in place of a file; missing folders are created."""
    check_file(tmp_path / "new" / "deep" / "file")
    assert (tmp_path / "new" / "deep").is_dir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "text").write_text("kept")
    check_file(tmp_path / "text")
    assert (tmp_path / "text").read_text() == "kept"
    for path, message in (
        (tmp_path / "taken", "taken is a folder"),
        (Path("/dev/null"), "no regular file"),
        (Path("/proc/vectors"), "--output /proc/vectors: cannot be written"),
        (tmp_path / "text" / "below", "below: cannot be written"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_file(path)
    with pytest.raises(ConfigError, match="taken is a folder"):
        make_folder(tmp_path, names=("free", "taken"))
    with files_of_at_most(100), pytest.raises(ConfigError, match="cannot be written"):
        make_folder(tmp_path)


def test_what_does_not_fit_is_an_error(tmp_path: Path) -> None:
    """Not all of the content is written: the rest raises, and closing the file does not try again."""
    with (
        (tmp_path / "file").open("ab", buffering=0) as file,
        files_of_at_most(4),
        pytest.raises(OSError, match="large"),
    ):
        write_all(file, b"123456")
