"""Lists of captions: every published form gives the same pairs, and what is malformed is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.items import UNLABELLED
from mote_fast.errors import ListError
from mote_fast.evaluation.captions import CaptionedVideos, read_captions

PAIRS = [("b.mp4", "a dog runs"), ("a.avi", "two men talk, then leave"), ("b.mp4", "an animal on grass")]


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def pairs_of(found: CaptionedVideos) -> list[tuple[str, str]]:
    return [
        (found.items[at].path, caption) for at, caption in zip(found.video_of.tolist(), found.captions, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", 'video,caption\nb.mp4,a dog runs\na.avi,"two men talk, then leave"\nb.mp4,an animal on grass\n'),
        ("l.CSV", 'key,Sentence,video_id\n0,a dog runs,b.mp4\n1,"two men talk, then leave",a.avi\n'),
        ("l.json", [{"video": video, "caption": caption} for video, caption in PAIRS]),
        ("l.json", [{"path": "b.mp4", "text": [PAIRS[0][1], PAIRS[2][1]]}, {"path": "a.avi", "text": PAIRS[1][1]}]),
        ("l.json", {"b.mp4": [PAIRS[0][1], PAIRS[2][1]], "a.avi": PAIRS[1][1]}),
        ("l.json", {"sentences": [{"video_id": video, "caption": caption, "sen_id": 1} for video, caption in PAIRS]}),
    ],
)
def test_forms(tmp_path: Path, name: str, content: Any) -> None:
    """A video with several captions is listed once, in the order of its first one; commas and columns may vary."""
    found = read_captions(written(tmp_path / name, content))
    assert found.name == "l"
    assert [item.path for item in found.items] == ["b.mp4", "a.avi"]
    assert {item.label for item in found.items} == {UNLABELLED}
    expected = PAIRS[:2] if name == "l.CSV" else PAIRS
    assert sorted(pairs_of(found)) == sorted(expected)


@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(["a", "b c", "d"]), st.text(min_size=1).filter(lambda text: text == text.strip() != "")
        ),
        min_size=1,
        max_size=6,
    )
)
def test_pairs_survive(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> None:
    """Any captions, of any script, come back from JSON in the order of the list."""
    path = tmp_path_factory.mktemp("captions") / "list.json"
    path.write_text(json.dumps([{"video": f"{video}.mp4", "caption": caption} for video, caption in pairs]))
    assert pairs_of(read_captions(path)) == [(f"{video}.mp4", caption) for video, caption in pairs]


def test_names_without_a_suffix(tmp_path: Path) -> None:
    """MSR-VTT names videos without suffix: the file that is there is taken, and a missing one is listed as .mp4."""
    root = tmp_path / "videos"
    root.mkdir()
    for name in ("video1.webm", "video2", "v.2.avi"):
        (root / name).write_bytes(b"")
    rows = "".join(f"{name},text\n" for name in ("video1", "video2", "v.2", "video3"))
    found = read_captions(written(tmp_path / "l.csv", f"video_id,sentence\n{rows}"), root)
    names = ["video1.webm", "video2", "v.2.avi", "video3.mp4"]
    assert [item.path for item in found.items] == [str(root / name) for name in names]


def test_split_of_msrvtt(tmp_path: Path) -> None:
    """The videos' own table chooses the captions; with several splits one has to be named."""
    videos = [{"video_id": "v1", "split": "train"}, {"video_id": "v2", "split": "test"}]
    sentences = [{"video_id": video, "caption": f"of {video}"} for video in ("v1", "v2", "v2")]
    path = written(tmp_path / "data.json", {"videos": videos, "sentences": sentences})
    assert pairs_of(read_captions(path, split="test")) == [("v2.mp4", "of v2")] * 2
    with pytest.raises(ListError, match=r"splits \['test', 'train'\]; give --split"):
        read_captions(path)
    with pytest.raises(ListError, match=r"no split 'val'; it has \['test', 'train'\]"):
        read_captions(path, split="val")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", "video,label\na.mp4,1\n", r"l\.csv:2: needs a video .* and a caption .*, has \['video'\]"),
        ("l.csv", "video,caption\n", "holds no captions"),
        ("l.csv", "video,caption\na.mp4,one, two\n", r"l\.csv:2: has more columns"),
        ("l.csv", "video,caption\na.mp4, \n", r"l\.csv:2: a caption must be a text that is not blank"),
        ("l.csv", "video,caption\n,one\n", r"l\.csv:2: names no video"),
        ("l.json", "[1]", r"l\.json, entry 1: must be an object"),
        ("l.json", '[{"video": "a"}]', r"l\.json, entry 1: needs a video"),
        ("l.json", '{"a": []}', r"video 'a': has no caption"),
        ("l.json", '{"a": 3}', r"video 'a': a caption must be a text"),
        ("l.json", '{"a": "\\ud800"}', r"video 'a': a caption must be a text"),
        ("l.json", '[{"a\\nb": 1}]', r"has \['a\\nb'\]"),
        ("l.json", '{"sentences": [{"video_id": "a", "caption": "b"}], "videos": [1]}', r"needs a 'video_id'"),
        ("l.json", '"a"', r"must be a list"),
        ("l.json", "[]", "holds no captions"),
        ("l.json", "video,caption", "not JSON"),
    ],
)
def test_malformed(tmp_path: Path, name: str, content: str, message: str) -> None:
    """The error names the file and the entry."""
    with pytest.raises(ListError, match=message):
        read_captions(written(tmp_path / name, content))


@pytest.mark.parametrize(("name", "content"), [("l.csv", "video,caption\na,b\n"), ("l.json", '{"a": "b"}')])
def test_a_split_of_a_list_without_splits(tmp_path: Path, name: str, content: str) -> None:
    """A split that cannot be chosen is refused, not ignored."""
    with pytest.raises(ListError, match="leave out --split"):
        read_captions(written(tmp_path / name, content), split="test")
