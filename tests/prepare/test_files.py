"""Files are written whole, and not over earlier ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.errors import ConfigError
from mote_fast.prepare.files import write_files


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """One file in the way keeps all of them from being written; force replaces it."""
    folder = tmp_path / "new" / "folder"
    write_files(folder, {"a.txt": "1\n"})
    with pytest.raises(ConfigError, match=r"a\.txt: exists; give --force"):
        write_files(folder, {"b.txt": "2\n", "a.txt": "2\n"})
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt"]
    write_files(folder, {"b.txt": "2\n", "a.txt": "é\n"}, force=True)
    assert (folder / "a.txt").read_bytes() == "é\n".encode()


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    """An error half way through a file keeps what was there, and no remains."""
    write_files(tmp_path, {"a.txt": "1\n"})
    with pytest.raises(UnicodeEncodeError):
        write_files(tmp_path, {"a.txt": "2 \udc80\n"}, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "1\n"


def test_output_must_be_a_folder(tmp_path: Path) -> None:
    """A file in the place of the folder is named."""
    (tmp_path / "out").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="out: is not a folder"):
        write_files(tmp_path / "out", {"a.txt": ""})
