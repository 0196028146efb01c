"""Staged files: complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.errors import ConfigError
from mote_fast.runtime.files import make_folder, staged, write_bytes, write_texts


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
