"""Annotation files of other makers: whatever is in them, the reader returns pairs or segments, or one typed error."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mote_fast.clip.prompts import read_prompts
from mote_fast.data.items import check_items, read_list
from mote_fast.errors import ListError, MoteError
from mote_fast.evaluation.base_novel_table import collect, table_lines
from mote_fast.evaluation.captions import read_captions
from mote_fast.evaluation.combine import read_result
from mote_fast.prepare.activitynet import read_segments
from mote_fast.prepare.kinetics import read_k700
from tests.attack.conftest import Attack
from tests.evaluation.test_base_novel_table import result

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    3,
    2**70,
    0.5,
    1e300,
    "",
    " ",
    "a",
    "../../x",
    "\0",
    "\ud800",
    "a\nb",
    [],
    {},
    "é",
]


def captions_json(path: Path) -> None:
    found = read_captions(path, "root")
    assert len(found.captions) == len(found.video_of) > 0
    assert all(text.strip() for text in found.captions)
    assert set(found.video_of.tolist()) == set(range(len(found.items)))


def segments_json(path: Path) -> None:
    segments, _ = read_segments([path])
    assert segments
    for segment in segments:
        assert 0 <= segment.span.start < segment.span.end
        # Clips lie one folder below their root, and nowhere else.
        folder, name = segment.clip.split("/")
        assert folder.strip(".") == folder
        assert "\0" not in segment.clip
        assert name.startswith("v_")
    assert len({segment.clip for segment in segments}) == len(segments)


def kinetics_csv(path: Path) -> None:
    (path.parent / "videos").mkdir(exist_ok=True)
    (path.parent / "videos" / "a.mp4").touch()
    assert read_k700([path], path.parent / "videos").lists


def descriptions_json(path: Path) -> None:
    found = read_prompts(None, path)
    assert found.descriptions
    assert all(text.strip() for sentences in found.descriptions.values() for text in sentences)
    assert found.count(list(found.descriptions)) > 0


def templates_text(path: Path) -> None:
    assert all(template.format("x").count("x") for template in read_prompts(path, None).templates)


def video_list(path: Path) -> None:
    items = read_list(path)
    assert items
    for item in items:
        assert item.path
        assert len(set(item.labels)) == len(item.labels)
    with suppress(ListError):
        check_items(items, 50, str(path))
        assert all(0 <= label < 50 for item in items for label in item.labels)


def base_to_novel(path: Path) -> None:
    (row,) = collect({str(path): read_result(path)}, "running", "readable")
    assert 0 <= row.novel.mean <= 100
    assert 0 <= row.harmonic_mean <= 100
    assert table_lines([row])


ANNOTATION = {"segment": [0.5, 2], "label": "Long jump"}
DOORS: dict[str, tuple[str, Any, Callable[[Path], None]]] = {
    "caption list": ("l.json", [{"video": "a", "caption": "b"}, {"video": "c", "text": ["d", "e"]}], captions_json),
    "caption object": ("l.json", {"a": "b", "c": ["d", "e"]}, captions_json),
    "msrvtt": (
        "l.json",
        {"videos": [{"video_id": "a", "split": "x"}], "sentences": [{"video_id": "a", "caption": "b"}]},
        captions_json,
    ),
    "caption csv": ("l.csv", 'video,caption\na.mp4,one\nb.mp4,"two, three"\n', captions_json),
    "activitynet": (
        "activity_net.json",
        {"database": {"a": {"subset": "training", "annotations": [ANNOTATION, ANNOTATION]}}},
        segments_json,
    ),
    "descriptions": ("d.json", {"a": ["one", "two words"], "b": ["three"]}, descriptions_json),
    "templates": ("t.txt", "a photo of {}.\na video of {}.\n", templates_text),
    "list": ("l.txt", "a.mp4 3,17,2\nframes/x 12 1,4\nb c.webm 3 17 2\nd.mp4 5\n", video_list),
    "list csv": ("l.csv", 'path,label\na.mp4,"3,17"\nb.mp4,2\n', video_list),
    "base-to-novel result": ("r.json", result(93.0, 67.0, "1"), base_to_novel),
    "kinetics": ("t.csv", 'label,youtube_id,time_start,time_end,split\n"x, y",a,1,11,train\n', kinetics_csv),
}


def changed(value: Any, dice: random.Random) -> Any:
    """Return a JSON value with one part replaced, dropped or renamed."""
    if dice.random() < 0.25 or not isinstance(value, list | dict) or not value:
        return dice.choice(VALUES)
    copy = json.loads(json.dumps(value))
    key = dice.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    match dice.randrange(4) if isinstance(copy, dict) else dice.randrange(2):
        case 0:
            copy.pop(key)
        case 2:
            copy[str(dice.choice(VALUES))] = copy.pop(key)
        case _:
            copy[key] = changed(copy[key], dice)
    return copy


def refusal(read: Callable[[Path], None], path: Path) -> str:
    """Return the library's own error; empty if the file was read."""
    try:
        read(path)
    except MoteError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("door", DOORS)
def test_damaged_annotations(attack: Attack, tmp_path: Path, door: str) -> None:
    """A part that is missing, of another type or renamed, and bytes that are flipped, cut off or repeated."""
    name, content, read = DOORS[door]
    dice = random.Random(door)
    path = tmp_path / name
    for number in range(attack.size(60, 4000)):
        if isinstance(content, str) or number % 2:
            text = content if isinstance(content, str) else json.dumps(content)
            data = bytearray(text.encode())
            for _ in range(dice.randint(1, 3)):
                at = dice.randrange(len(data) + 1)
                data[at : at + dice.randint(0, 4)] = bytes(
                    dice.choice(b'\0\n\r",{}[]:;\xff\xef0a\\ ') for _ in range(dice.randint(0, 3))
                )
            damaged = bytes(data)
        else:
            damaged = json.dumps(changed(content, dice)).encode()
        path.write_bytes(damaged)
        with attack.attempt(damaged):
            said = refusal(read, path)
            # One line of a length that can be read, and that names the file.
            assert "\n" not in said
            assert len(said) < 600
            assert not said or str(path) in said


LISTS: dict[str, bytes] = {
    "100,000 labels": b"a.mp4 " + b",".join(b"%d" % number for number in range(100_000)),
    "100,000 labels with blanks": b"a.mp4 " + b" ".join(b"%d" % number for number in range(100_000)),
    "one label 100,000 times": b"a.mp4 " + b",".join([b"7"] * 100_000),
    "numbers before a name": b"1 " * 100_000 + b"x 1",
    "a label of 100,000 digits": b"a.mp4 " + b"9" * 100_000,
    "a label beyond int64": b"a.mp4 3,9223372036854775808",
    "negative labels": b"a.mp4 3,-1",
    "commas": b"a.mp4 " + b"," * 100_000,
    "no path": b"3,17",
    "NUL": b"a.mp4 3,1\x007",
    "other digits": "a.mp4 \u0663,\u0664".encode(),
}


@pytest.mark.parametrize("name", LISTS)
def test_hostile_lists(attack: Attack, tmp_path: Path, name: str) -> None:
    """Label counts and numbers that exhaust time or a message are read or refused in one short line."""
    path = tmp_path / "l.txt"
    path.write_bytes(LISTS[name])
    with attack.attempt(name):
        said = refusal(lambda place: check_items(read_list(place), 50, str(place)), path)
        assert not said or str(path) in said
        assert "\n" not in said
        assert len(said) < 600


HOSTILE: dict[str, bytes] = {
    "deep": b"[" * 200_000,
    "deep object": b'{"a":' * 100_000,
    "not UTF-8": b'{"a": ["\xe9"]}',
    "UTF-16": '{"a": ["b"]}'.encode("utf-16"),
    "a long word": b'{"a": ["' + b"x" * 1_000_000 + b'"]}',
    "a key twice at the end": b"{" + b"".join(b'"%d":["a"],' % number for number in range(100_000)) + b'"99999":["b"]}',
    "a long key twice": b'{"%s":1,"%s":2}' % (b"k" * 100_000, b"k" * 100_000),
    "a huge number": b'{"a": [' + b"9" * 100_000 + b"]}",
    "NaN": b'{"a": NaN}',
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_descriptions(attack: Attack, tmp_path: Path, name: str) -> None:
    """Contents that exhaust the stack, a quadratic search or a message are refused in one short line."""
    path = tmp_path / "d.json"
    path.write_bytes(HOSTILE[name])
    with attack.attempt(name):
        said = refusal(descriptions_json, path)
        assert str(path) in said
        assert "\n" not in said
        assert len(said) < 600
