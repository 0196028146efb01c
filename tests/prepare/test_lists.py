"""Lists and label files: the reader returns what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mote_fast.data.items import VideoItem, read_labels, read_list
from mote_fast.errors import ListError
from mote_fast.prepare.lists import (
    DataSet,
    VideoList,
    format_labels,
    format_list,
    split_camel_case,
    why_unlistable,
)
from mote_fast.runtime.text import underscores_to_spaces

PARTS = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12)
VIDEOS = st.builds("{}/{}.mp4".format, PARTS, PARTS)
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs")), min_size=1)


@given(st.lists(st.tuples(VIDEOS, st.integers(0, 999)), min_size=1))
def test_lists_survive_a_round_trip(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, int]]) -> None:
    """Any path that is not refused, with spaces, digits and other scripts, is read back unchanged."""
    items = [VideoItem(path, label) for path, label in pairs if why_unlistable(path) is None]
    assume(items)
    file = tmp_path_factory.mktemp("lists") / "list.txt"
    file.write_text(format_list(items), encoding="utf-8")
    assert read_list(file) == items


@pytest.mark.parametrize(
    "path",
    [
        "arm wrestling/a b 12.mp4",
        "a  b/c 3 .mp4",
        "女/视频 一.mp4",
        "climb/#2_Gum;-)!_%.avi",
        "x\u00a0y/é.webm",
        "-a/-b.mp4",
        "a\u2028b\x0b\x1c\x85c.mp4",
    ],
)
def test_ordinary_names_are_listable(path: str, tmp_path: Path) -> None:
    """Names of real data sets, and names with several spaces in a row, are not refused."""
    (tmp_path / "list.txt").write_text(format_list([VideoItem(path, 7)]), encoding="utf-8")
    assert read_list(tmp_path / "list.txt") == [VideoItem(path, 7)]


@pytest.mark.parametrize("path", ["a\nb.mp4", "a\rb.mp4", "", " a.mp4", "a.mp4\t", "\ufeffa.mp4", "a\udc80.mp4"])
def test_what_a_line_cannot_hold_is_refused(path: str) -> None:
    """A name that would be read back differently is an error, not a wrong line."""
    assert why_unlistable(path)
    with pytest.raises(ListError, match="rename it"):
        format_list([VideoItem(path, 0)])


def test_extracted_frames_keep_their_number(tmp_path: Path) -> None:
    """Folders of frames are written with the frame count in the middle column."""
    items = [VideoItem("jump/one two", 3, 40)]
    (tmp_path / "list.txt").write_text(format_list(items), encoding="utf-8")
    assert read_list(tmp_path / "list.txt") == items


@given(st.lists(NAMES, min_size=1, unique=True))
def test_labels_survive_a_round_trip(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Names with commas and quotes are read back."""
    file = tmp_path_factory.mktemp("labels") / "labels.csv"
    file.write_text(format_labels(names), encoding="utf-8")
    assert read_labels(file) == names


def test_labels_that_tell_no_classes_apart() -> None:
    """Two classes with one name, or a class without a name or with one that no line holds, are refused."""
    with pytest.raises(ListError, match="'jump'"):
        format_labels(["jump", "run", "jump"])
    for name in ("", " ", "a\nb", "pi\udcf1"):
        with pytest.raises(ListError, match="class 1"):
            format_labels(["jump", name])


def test_readable_names() -> None:
    """The names equal those of the released label files."""
    assert split_camel_case("HandstandPushups") == "Handstand Pushups"
    assert split_camel_case("CleanAndJerk") == "Clean And Jerk"
    assert split_camel_case("Skijet") == "Skijet"
    assert underscores_to_spaces("brush_hair") == "brush hair"


def test_paths_of_a_data_set_are_named_once() -> None:
    """A video of several lists is returned once."""
    first = VideoList("a.txt", (VideoItem("x.mp4", 0), VideoItem("y.mp4", 1)))
    second = VideoList("b.txt", (VideoItem("y.mp4", 1), VideoItem("z.mp4", 1)))
    assert DataSet("d", (first, second), {}).paths() == ["x.mp4", "y.mp4", "z.mp4"]
