"""Videos below a folder: each once, whatever links, hidden files and unreadable folders there are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mote_fast.data.find_videos import find_videos, is_video_name
from mote_fast.data.items import scan_folder
from mote_fast.errors import ListError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_names_decide(tmp_path: Path) -> None:
    """Extensions in any case and names of any bytes; hidden files and folders are left out."""
    names = ["a.mp4", "b/c.WebM", "b/line\nbreak.avi", os.fsdecode(b"\xe9t\xe9/\xff.mkv"), "x.mp4/y.mp4"]
    touch(tmp_path, *names, "b/._c.webm", ".cache/d.mp4", "b/notes.txt", "mp4")
    assert find_videos(tmp_path) == (sorted(names), [])
    assert not is_video_name(".hidden.mp4")


def test_links_are_followed_once(tmp_path: Path) -> None:
    """Class folders are often links to other disks. A folder's own name wins, and circles end."""
    root = touch(tmp_path / "root", "b/v.mp4")
    touch(tmp_path / "disk", "w.mp4", "deep/x.mp4")
    (root / "a").symlink_to(root / "b")
    (root / "b" / "up").symlink_to(root)
    (root / "c").symlink_to(tmp_path / "disk")
    (root / "d").symlink_to(tmp_path / "disk" / "deep")
    (tmp_path / "disk" / "around").symlink_to(root / "c")
    (root / "e.mp4").symlink_to("e.mp4")
    (root / "dangling.mp4").symlink_to("nowhere")
    (root / "f").symlink_to("f")
    found = find_videos(root)
    assert found.unreadable == []
    assert [path for path in found.paths if not path.endswith("x.mp4")] == [
        "b/v.mp4",
        "c/w.mp4",
        "dangling.mp4",
        "e.mp4",
    ]
    assert sum(path.endswith("x.mp4") for path in found.paths) == 1
    items, names = scan_folder(root)
    assert names[:2] == ["b", "c"]
    assert len(items) == 3


def test_unreadable_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their videos are not lost in silence; of a folder for each class they could shift the classes' numbers."""
    root = touch(tmp_path, "a/v.mp4", "b/v.mp4", "c/v.mp4")
    real = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert find_videos(root) == (["a/v.mp4", "c/v.mp4"], [f"{root}/b: cannot be read (Permission denied)"])
    with pytest.raises(ListError, match=r"/b: cannot be read \(Permission denied\); make it readable"):
        scan_folder(root)
    monkeypatch.undo()
    assert find_videos(root / "none").unreadable == [f"{root}/none: cannot be read (No such file or directory)"]
