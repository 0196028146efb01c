"""Videos are found by name, in any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.data.find_videos import FoundVideos
from mote_fast.errors import ListError
from mote_fast.prepare.tree import VideoTree
from tests.prepare.conftest import touch


def test_finds_any_container_in_any_folder(tmp_path: Path) -> None:
    """Extension and folder may differ from the annotations; other files are ignored."""
    touch(tmp_path, "train/arm_wrestling/a.mkv", "b.MP4", "b.txt", "train/.c.mp4")
    tree = VideoTree(tmp_path)
    assert tree.find("a") == "train/arm_wrestling/a.mkv"
    assert tree.find("b") == "b.MP4"
    assert tree.find("c") is None
    assert tree.find(".c") is None


def test_the_nearest_of_several_is_taken(tmp_path: Path) -> None:
    """A class folder with spaces or underscores and the split's folder decide, then the first by path."""
    touch(tmp_path, "train/Arm Wrestling/a.mp4", "val/arm_wrestling/a.mp4", "val/air drumming/a.mp4")
    tree = VideoTree(tmp_path)
    assert tree.find("a", "arm wrestling", "val") == "val/arm_wrestling/a.mp4"
    assert tree.find("a", "arm wrestling", "train") == "train/Arm Wrestling/a.mp4"
    assert tree.find("a", "air drumming") == "val/air drumming/a.mp4"
    assert tree.find("a") == "train/Arm Wrestling/a.mp4"


def test_case(tmp_path: Path) -> None:
    """Names that differ in case are different videos unless ``ignore_case``; an exact match comes first."""
    touch(tmp_path, "x/v_HandStand.avi", "y/v_handstand.avi")
    assert VideoTree(tmp_path).find("v_Handstand") is None
    tree = VideoTree(tmp_path, ignore_case=True)
    assert tree.find("v_Handstand") == "x/v_HandStand.avi"
    assert tree.find("v_handstand") == "y/v_handstand.avi"


def test_links(tmp_path: Path) -> None:
    """Linked class folders are searched; a link to a parent folder causes no endless walk."""
    touch(tmp_path / "disk", "jump/a.mp4")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "jump").symlink_to(tmp_path / "disk" / "jump")
    (tmp_path / "disk" / "jump" / "up").symlink_to(tmp_path / "root")
    assert VideoTree(tmp_path / "root").find("a") == "jump/a.mp4"


def test_unreadable_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Their videos are not missing in silence."""
    touch(tmp_path, "a.mp4")
    monkeypatch.setattr("mote_fast.prepare.tree.find_videos", lambda _: FoundVideos(["a.mp4"], ["b: cannot be read"]))
    assert VideoTree(tmp_path).find("a") == "a.mp4"
    assert "b: cannot be read; its videos count as missing" in caplog.text


def test_wrong_root(tmp_path: Path) -> None:
    """A missing folder and a folder without videos are refused with the option's name."""
    with pytest.raises(ListError, match=r"none: no such folder.*--root"):
        VideoTree(tmp_path / "none")
    with pytest.raises(ListError, match=r"holds no videos.*--root"):
        VideoTree(tmp_path)
