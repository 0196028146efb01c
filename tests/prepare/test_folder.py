"""Lists from a folder per class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.items import VideoItem, read_list
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.folder import read_folder
from mote_fast.prepare.lists import LABELS_FILE, DataSet, format_list
from tests.prepare.conftest import touch


def labels_in(data_set: DataSet, name: str) -> Counter[int]:
    return Counter(item.label for each in data_set.lists if each.name == name for item in each.items)


def test_split_is_stratified_and_seeded(tmp_path: Path) -> None:
    """Every class gives its share; lists depend on the seed; no video is in both lists."""
    touch(tmp_path, *(f"{name}/{at:02d}.mp4" for name in ("long_jump", "run fast") for at in range(20)))
    data_set = read_folder(tmp_path, val_share=0.25, seed=3)
    assert labels_in(data_set, "trainlist.txt") == {0: 15, 1: 15}
    assert labels_in(data_set, "vallist.txt") == {0: 5, 1: 5}
    assert sorted(data_set.paths()) == sorted(
        f"{name}/{at:02d}.mp4" for name in ("long_jump", "run fast") for at in range(20)
    )
    assert data_set.labels == {LABELS_FILE: ("long jump", "run fast")}
    assert read_folder(tmp_path, val_share=0.25, seed=3) == data_set
    assert read_folder(tmp_path, val_share=0.25, seed=4) != data_set
    picked = {item.path.split("/")[1] for item in data_set.lists[1].items if item.label == 0}
    assert picked != {item.path.split("/")[1] for item in data_set.lists[1].items if item.label == 1}


def test_small_classes(tmp_path: Path) -> None:
    """A class of two gives one to each list, a class of one trains, and a share of 0 gives no list."""
    touch(tmp_path, "a/1.mp4", "b/1.mp4", "b/2.mp4")
    data_set = read_folder(tmp_path, val_share=0.1)
    assert labels_in(data_set, "trainlist.txt") == {0: 1, 1: 1}
    assert labels_in(data_set, "vallist.txt") == {1: 1}
    assert [each.name for each in read_folder(tmp_path, val_share=0.0).lists] == ["trainlist.txt"]
    assert labels_in(read_folder(tmp_path, val_share=0.99), "trainlist.txt") == {0: 1, 1: 1}


def test_small_classes_give_a_quarter_unasked(tmp_path: Path) -> None:
    """A tenth of few videos tells nothing; the split is said where nobody asked for it."""
    touch(tmp_path, *(f"{name}/{at}.mp4" for name, videos in (("a", 8), ("b", 60), ("c", 3)) for at in range(videos)))
    data_set = read_folder(tmp_path)
    assert labels_in(data_set, "vallist.txt") == {0: 2, 1: 10, 2: 1}
    (note,) = data_set.notes
    assert note.startswith("13 of 71 videos (18%) are for validation")
    assert read_folder(tmp_path, val_share=0.1).notes == ()


def test_classes_that_name_a_side(tmp_path: Path) -> None:
    """Mirrored videos of a pair change places; those of a class without its counterpart are not mirrored."""
    touch(tmp_path, *(f"{name}/1.mp4" for name in ("turn_left", "turn_right", "wave", "circle_moving_right")))
    data_set = read_folder(tmp_path)
    assert data_set.labels[LABELS_FILE] == ("circle moving right", "turn left", "turn right", "wave")
    assert data_set.flip_labels == {0: None, 1: 2, 2: 1}
    (note,) = data_set.notes
    assert note.endswith("classes whose mirror image is no class (1): circle moving right.")


def test_existing_parts(tmp_path: Path) -> None:
    """train and val folders are kept; classes are numbered over both."""
    touch(tmp_path, "train/b/1.mp4", "train/c/deep er/2.mp4", "Validation/a/3.mp4", "Validation/c/4.mp4")
    data_set = read_folder(tmp_path)
    assert {each.name: each.items for each in data_set.lists} == {
        "trainlist.txt": (VideoItem("train/b/1.mp4", 1), VideoItem("train/c/deep er/2.mp4", 2)),
        "vallist.txt": (VideoItem("Validation/a/3.mp4", 0), VideoItem("Validation/c/4.mp4", 2)),
    }
    assert data_set.notes == (
        "The train part has no videos of 1 classes: a.",
        "The val part has no videos of 1 classes: b.",
    )


def test_a_class_named_train(tmp_path: Path) -> None:
    """With other classes, "train" is a class."""
    touch(tmp_path, "train/1.mp4", "plane/2.mp4", "car/3.mp4")
    assert read_folder(tmp_path).labels[LABELS_FILE] == ("car", "plane", "train")


def test_bad_arguments(tmp_path: Path) -> None:
    """Errors name a share out of range and a wrong folder."""
    touch(tmp_path, "a/1.mp4")
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="--val-share"):
            read_folder(tmp_path, val_share=share)
    with pytest.raises(ListError, match="none: no such folder"):
        read_folder(tmp_path / "none")


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1, max_size=8).filter(
    lambda name: name.strip() == name and not name.startswith((".", "\ufeff")) and "/" not in name
)


@given(st.sets(NAMES, min_size=1, max_size=3), st.sets(NAMES, min_size=1, max_size=3))
def test_any_names(tmp_path_factory: pytest.TempPathFactory, classes: set[str], videos: set[str]) -> None:
    """Folders and files with spaces and in any script are found at the paths of the written list."""
    root = tmp_path_factory.mktemp("root")
    touch(root, *(f"{name}/{video}.mp4" for name in classes for video in videos))
    listed = [item for each in read_folder(root).lists for item in each.items]
    (root / "list.txt").write_text(format_list(listed), encoding="utf-8")
    items = read_list(root / "list.txt", root)
    assert len(items) == len(classes) * len(videos)
    assert all(Path(item.path).is_file() for item in items)


@pytest.mark.parametrize("parts", [("",), ("train/", "val/")])
def test_a_class_folder_that_is_not_utf8_is_named(tmp_path: Path, parts: tuple[str, ...]) -> None:
    """Left out, it would shift the numbers of the classes after it; class names are UTF-8."""
    for folder in (f"{part}{name}" for part in parts for name in ("run", "pi\udcf1")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "v.mp4").touch()
    with pytest.raises(ListError, match=r"udcf1.*rename it"):
        read_folder(tmp_path)
