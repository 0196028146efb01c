"""Finding identical files."""

from __future__ import annotations

import os
from pathlib import Path

from mote_fast.prepare.duplicates import find_duplicates
from tests.prepare.conftest import write


def test_groups_by_content(tmp_path: Path) -> None:
    """Groups need equal content, not equal names; only files of equal size are read."""
    texts = {
        "b/1.mp4": "same",
        "a/2.mp4": "same",
        "3.mp4": "diff",
        "4.mp4": "longer",
        "5.mp4": "diff",
        "c d.mp4": "same",
    }
    for path, text in texts.items():
        write(tmp_path / path, text)
    sizes = {path: len(text) for path, text in texts.items()} | {"gone1.mp4": 9, "gone2.mp4": 9}
    groups = find_duplicates(tmp_path, sizes, workers=2)
    assert [group.paths for group in groups] == [("3.mp4", "5.mp4"), ("a/2.mp4", "b/1.mp4", "c d.mp4")]
    assert [group.size for group in groups] == [4, 4]
    assert groups[0].digest != groups[1].digest


def test_pipes_are_in_no_group(tmp_path: Path) -> None:
    """They are not waited for."""
    for name in "ab":
        os.mkfifo(tmp_path / name)
    assert find_duplicates(tmp_path, {"a": 0, "b": 0}) == []
