"""Splits that share videos: each video once, with its label in each split."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.items import UNLABELLED, VideoItem
from mote_fast.errors import ListError
from mote_fast.evaluation.splits import Split, mix_splits, pool_splits, read_split
from mote_fast.prepare.folder import read_folder

# Lists of video numbers, and which of two label sets each list uses.
listings = st.lists(
    st.tuples(st.lists(st.integers(0, 8), min_size=1, max_size=12), st.booleans()), min_size=1, max_size=4
)


@given(listings)
def test_every_listing_finds_its_video_and_label(listed: list[tuple[list[int], bool]]) -> None:
    """The pool has each video once; each split finds its videos there, repeats included, with its own labels."""
    names = {False: ["a", "b", "c"], True: ["d", "e", "f", "g"]}
    splits = [
        Split(str(number), [VideoItem(f"{video}.mp4", video % len(names[other])) for video in videos], names[other])
        for number, (videos, other) in enumerate(listed)
    ]
    pool = pool_splits(splits)
    paths = [item.path for item in pool.items]
    assert sorted(paths) == sorted({item.path for split in splits for item in split.items})
    for split, member in zip(splits, pool.memberships, strict=True):
        assert list(pool.class_names[member.label_set]) == split.class_names
        assert [paths[position] for position in member.positions.tolist()] == [item.path for item in split.items]
        assert pool.labels[member.label_set][member.positions].tolist() == [item.label for item in split.items]
    for label_set, labels in enumerate(pool.labels):
        judged = {
            at for member in pool.memberships if member.label_set == label_set for at in member.positions.tolist()
        }
        assert {at for at, label in enumerate(labels.tolist()) if label != UNLABELLED} == judged


def test_two_classes_for_one_video_are_refused() -> None:
    """The lists contradict each other; the error names the video."""
    first, second = (Split(str(label), [VideoItem("a.mp4", label)], ["x", "y"]) for label in (0, 1))
    with pytest.raises(ListError, match=r"a\.mp4"):
        pool_splits([first, second])


def test_read_a_list(tmp_path: Path) -> None:
    """Paths are joined to the root, and the split is named after its file."""
    (tmp_path / "split1.txt").write_text("a b.mp4 1\nc.mp4 0\n")
    (tmp_path / "names.csv").write_text("id,name\n0,archery\n1,juggling\n")
    split = read_split(tmp_path / "split1.txt", tmp_path / "names.csv", "videos")
    assert split == Split(
        "split1", [VideoItem("videos/a b.mp4", 1), VideoItem("videos/c.mp4", 0)], ["archery", "juggling"]
    )


def test_read_a_folder(tmp_path: Path) -> None:
    """A folder per class needs no names, and takes others if there are as many."""
    for name in ("Archery", "Juggling"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "v.mp4").touch()
    assert read_split(tmp_path / "data", None).class_names == ["Archery", "Juggling"]
    (tmp_path / "names.txt").write_text("shooting arrows\njuggling balls\n")
    named = read_split(tmp_path / "data", tmp_path / "names.txt")
    assert named.name == "data"
    assert named.class_names == ["shooting arrows", "juggling balls"]
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(ListError, match="3 names"):
        read_split(tmp_path / "data", tmp_path / "names.txt")


def test_class_folders_have_one_name_everywhere(tmp_path: Path) -> None:
    """What evaluations and analyses read from class folders is what ``prepare folder`` writes and training learns."""
    for name in ("circle_moving_right", "brush hair", "_odd__name_"):
        (tmp_path / name).mkdir()
        for video in ("1.mp4", "2.mp4"):
            (tmp_path / name / video).touch()
    (written,) = read_folder(tmp_path).labels.values()
    assert list(read_split(tmp_path, None).class_names) == list(written)
    assert list(written) == ["odd name", "brush hair", "circle moving right"]


@pytest.mark.parametrize(
    ("content", "labels", "message"),
    [
        ("a.mp4 2\n", "names.txt", "label 2"),
        ("a.mp4 0\n", None, "--labels-file"),
        ("a.mp4 0\n", "none.txt", "none.txt"),
    ],
)
def test_bad_lists(tmp_path: Path, content: str, labels: str | None, message: str) -> None:
    """Labels without a name, lists without names: refused before anything is decoded."""
    (tmp_path / "list.txt").write_text(content)
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    with pytest.raises(ListError, match=message):
        read_split(tmp_path / "list.txt", None if labels is None else tmp_path / labels)


def test_folders_take_the_numbers_of_a_file_that_names_them(tmp_path: Path) -> None:
    """A file with the folders' names in another order gives its numbers, as it does for a list."""
    for name in ("Archery", "long_jump", "zumba"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "v.mp4").touch()
    (tmp_path / "names.csv").write_text("id,name\n2,archery\n0,Zumba\n1,long jump\n")
    split = read_split(tmp_path / "data", tmp_path / "names.csv")
    assert split.class_names == ["Zumba", "long jump", "archery"]
    assert [(Path(item.path).parent.name, item.label) for item in split.items] == [
        ("Archery", 2),
        ("long_jump", 1),
        ("zumba", 0),
    ]


def test_mixed_classes_are_one_where_their_names_are() -> None:
    """The name "High Jump" of one list is "high_jump" of another; names that one list tells apart stay apart."""
    one = Split("one", [VideoItem("0.mp4", 1)], ["archery", "high_jump", "C", "C++"])
    two = Split("two", [VideoItem("1.mp4", 0), VideoItem("2.mp4", 1), VideoItem("3.mp4", 2)], ["High Jump", "c", "!"])
    mixed = mix_splits([one, two])
    assert [split.name for split in mixed] == ["one, mixed", "two, mixed"]
    for split in mixed:
        assert split.class_names == ["archery", "high_jump", "C", "C++", "c", "!"]
    assert [[item.label for item in split.items] for split in mixed] == [[1], [1, 4, 5]]
    assert [item.label for item in two.items] == [0, 1, 2]
