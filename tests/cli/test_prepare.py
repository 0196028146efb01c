"""``mote-fast prepare`` from the command line, on archives with real annotation formats and real videos."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from mote_fast.cli import main
from mote_fast.data.flip_labels import read_flip_labels
from mote_fast.data.items import check_items, read_labels, read_list
from tests.prepare.conftest import VideoMaker, touch, write
from tests.prepare.conftest import make_video as make_video

Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    status = main(["prepare", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def tree(tmp_path: Path, make_video: VideoMaker) -> Path:
    """Two classes of four videos, one of them damaged."""
    for name in ("arm_wrestling", "air drumming"):
        for at in range(4):
            make_video(tmp_path / "videos" / name / f"clip {at}.avi")
    write(tmp_path / "videos" / "arm_wrestling" / "clip 1.avi", "damaged")
    return tmp_path / "videos"


@pytest.mark.heavy
def test_folder(capsys: Captured, tree: Path, tmp_path: Path) -> None:
    """A folder per class gives lists that the library reads; the report names the damaged file; status 0."""
    output = tmp_path / "lists"
    options = ("--root", tree, "--output", output, "--val-share", 0.25, "--scan", "--drop-bad", "--workers", 2)
    status, out, _ = run(capsys, "folder", *options)
    assert status == 0
    assert "unreadable (1)" in out
    assert out.startswith((output / "report.txt").read_text(encoding="utf-8"))
    assert "arm_wrestling/clip 1.avi" in out
    labels = read_labels(output / "labels.csv")
    assert labels == ["air drumming", "arm wrestling"]
    items = [item for which in ("train", "val") for item in read_list(output / f"{which}list.txt", tree)]
    check_items(items, len(labels), "both lists")
    assert Counter(item.label for item in items) == {0: 4, 1: 3}
    assert all(Path(item.path).is_file() for item in items)


def test_json(capsys: Captured, tree: Path, tmp_path: Path) -> None:
    """The output is one JSON document, equal to the file."""
    status, out, _ = run(capsys, "folder", "--root", tree, "--output", tmp_path / "lists", "--json")
    assert status == 0
    document = json.loads(out)
    assert document == json.loads((tmp_path / "lists" / "report.json").read_text(encoding="utf-8"))
    assert (document["data_set"], document["scanned"]) == ("folder", False)


def test_every_published_data_set(capsys: Captured, tmp_path: Path) -> None:
    """Each data set's annotation files give its lists, under the names of the official code."""
    notes = tmp_path / "annotations"
    for split in (1, 2, 3):
        write(notes / "ucf101" / f"trainlist0{split}.txt", "HandstandPushups/v_HandStandPushups_g08_c01.avi 1\n")
        write(notes / "ucf101" / f"testlist0{split}.txt", "HandstandPushups/v_HandStandPushups_g01_c01.avi\n")
        write(notes / "hmdb51" / f"brush_hair_test_split{split}.txt", "a_brush_hair.avi 1 \nb_brush_hair.avi 2 \n")
    write(notes / "ucf101" / "classInd.txt", "1 HandstandPushups\n")
    header = "label,youtube_id,time_start,time_end,split\n"
    write(notes / "k400" / "train.csv", header + "arm wrestling,abc,1,11,train\narm wrestling,def,1,11,val\n")
    write(notes / "k600" / "test.csv", header + "arguing,abc,1,11,test\n")
    write(notes / "k700" / "train.csv", header + "arguing,abc,1,11,train\n")
    write(notes / "k700" / "test.csv", "youtube_id,time_start,time_end,split\nabc,1,11,test\n")
    write(notes / "ssv2" / "labels.json", '{"Moving left": "0", "Moving right": "1"}')
    write(notes / "ssv2" / "train.json", '[{"id": "1", "template": "Moving [left]"}]')
    write(notes / "ssv2" / "validation.json", '[{"id": "2", "template": "Moving right"}]')
    root = touch(
        tmp_path / "videos",
        "HandstandPushups/v_HandstandPushups_g08_c01.avi",
        "brush_hair/b_brush_hair.avi",
        "arm wrestling/abc_000001_000011.mp4",
        "1.webm",
    )
    splits = {f"{which}list_split{split}.txt" for which in ("train", "val") for split in (1, 2, 3)}
    zero_shot = {f"k160_test_split{split}.txt" for split in (1, 2, 3)}
    expected = {
        "ucf101": splits,
        "hmdb51": splits,
        "k400": {"trainlist.txt", "vallist.txt"},
        "k600": {"testlist.txt", *zero_shot},
        "k700": {"trainlist.txt"},
        "ssv2": {"trainlist.txt", "vallist.txt"},
    }
    for name, lists in expected.items():
        output = tmp_path / "out" / name
        status, out, _ = run(capsys, name, "--annotations", notes / name, "--root", root, "--output", output, "--json")
        report = json.loads(out)
        assert status == 0
        assert set(report["lists"]) == lists
        written = {each for each, count in report["lists"].items() if count["written"]}
        assert {path.name for path in output.glob("*.txt")} == written | {"report.txt"}
        for each in written:
            assert read_list(output / each, root)
        assert read_labels(output / "labels.csv")
    assert read_labels(tmp_path / "out" / "ucf101" / "labels.csv") == ["Handstand Pushups"]
    assert read_labels(tmp_path / "out" / "hmdb51" / "labels.csv") == ["brush hair"]
    assert len(read_labels(tmp_path / "out" / "k600" / "k160_labels_split1.csv")) == 160
    assert read_flip_labels(tmp_path / "out" / "ssv2" / "flip_labels.csv") == {0: 1, 1: 0}


@pytest.mark.heavy
def test_activitynet(capsys: Captured, tmp_path: Path, make_video: VideoMaker) -> None:
    """The segments of the videos that are there are cut and listed, those of missing ones are reported; status 0."""
    make_video(tmp_path / "videos" / "v_abc.mp4", frames=24)
    segments = [{"segment": [start, start + 0.5], "label": "Long jump"} for start in (0, 1.5, 40)]
    database = {name: {"subset": "training", "annotations": segments[:at]} for name, at in (("abc", 3), ("gone", 1))}
    notes = write(tmp_path / "activity_net.v1-3.min.json", json.dumps({"database": database}))
    clips, lists = tmp_path / "clips", tmp_path / "lists"
    options = ("--annotations", notes, "--root", clips, "--output", lists, "--workers", 1)
    cutting = ("--cut-from", tmp_path / "videos", "--short-side", 16)
    status, out, _ = run(capsys, "activitynet", *options, *cutting, "--scan", "--min-frames", 6, "--drop-bad", "--json")
    report = json.loads(out)
    assert status == 0
    assert report["lists"] == {"trainlist.txt": {"annotated": 4, "written": 2}}
    assert report["counts"] == {"missing": 2, "unreadable": 0, "short": 0, "unlistable": 0, "cut short": 0} | {
        "duplicate groups": 0
    }
    assert report["videos"]["short side"]["most"] == 16
    assert any(note.startswith("1 clips have no video") for note in report["notes"])
    assert any(note.startswith("1 clips could not be cut") for note in report["notes"])
    items = read_list(lists / "trainlist.txt", clips)
    assert [Path(item.path).name for item in items] == ["v_abc_0000000_0000500.mp4", "v_abc_0001500_0002000.mp4"]
    status, out, err = run(capsys, "activitynet", *options)
    assert (status, "give --force" in err) == (2, True)
    status, out, _ = run(capsys, "activitynet", *options, "--force", "--json")
    assert (status, json.loads(out)["counts"]["missing"]) == (0, 2)


def test_fewshot(capsys: Captured, tmp_path: Path) -> None:
    """There is one list for each K, as long as the full list, with K videos per class."""
    full = write(tmp_path / "full.txt", "".join(f"class {at % 3}/{at}.mp4 {at % 3}\n" for at in range(100)))
    status, out, _ = run(capsys, "fewshot", "--list", full, "--output", tmp_path, "--seed", 5, "--json")
    assert status == 0
    assert [each["shots"] for each in json.loads(out)["lists"]] == [2, 4, 8, 16]
    for shots in (2, 4, 8, 16):
        items = read_list(tmp_path / f"fewshot_K{shots}_seed5.txt")
        assert len(items) == 100
        assert Counter(item.label for item in set(items)) == {0: shots, 1: shots, 2: shots}
        assert set(items) <= set(read_list(full))


def test_fewshot_of_a_small_list(capsys: Captured, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without --shots, the lists that each class suffices for; a number that was asked for is an error."""
    full = write(tmp_path / "full.txt", "".join(f"{at}.mp4 {at % 3}\n" for at in range(21)))
    options = ("fewshot", "--list", full, "--output", tmp_path / "out")
    status, out, _ = run(capsys, *options, "--json")
    assert (status, [each["shots"] for each in json.loads(out)["lists"]]) == (0, [2, 4])
    assert "no list of 8 shots: class 0 has 7 videos" in caplog.text
    status, _, err = run(capsys, *options, "--shots", 2, 8)
    assert status == 2
    assert "class 0 has 7 videos" in err


def test_fewshot_lengths(capsys: Captured, tmp_path: Path) -> None:
    """``--length`` takes a number of entries, "once" or "full"."""
    full = write(tmp_path / "full.txt", "".join(f"{at}.mp4 {at % 3}\n" for at in range(100)))
    for length, entries in (("7", 7), ("once", 6), ("full", 100)):
        options = ("--list", full, "--shots", 2, "--output", tmp_path, "--length", length, "--force")
        status, out, _ = run(capsys, "fewshot", *options)
        assert status == 0
        assert f"6 videos of 3 classes, repeated to {entries} entries" in out
        assert len(read_list(tmp_path / "fewshot_K2_seed0.txt")) == entries


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folder", "--root", "none", "--output", "out"], "none: no such folder"),
        (["folder", "--root", "videos", "--output", "out", "--val-share", "1"], "--val-share"),
        (["folder", "--root", "videos", "--output", "out", "--workers", "0"], "--workers"),
        (["folder", "--root", "videos", "--output", "videos/a/1.mp4"], "is not a folder"),
        (["folder", "--root", "videos", "--output", "taken"], "give --force"),
        (["ucf101", "--annotations", "none", "--root", "videos", "--output", "out"], "none: no such file or folder"),
        (["k400", "--annotations", "bad.csv", "--root", "videos", "--output", "out"], "bad.csv:2: "),
        (["k400", "--annotations", "good.csv", "--root", "videos", "--output", "out"], "check --root"),
        (["activitynet", "--annotations", "bad.csv", "--root", "videos", "--output", "out"], "no file named"),
        (["activitynet", "--annotations", "net", "--root", "videos", "--output", "out"], "needs a list"),
        (
            ["activitynet", "--annotations", "net", "--root", "videos", "--output", "out", "--crf", "99"],
            "--crf must be at most 51",
        ),
        (
            ["activitynet", "--annotations", "net2", "--root", "c", "--output", "taken", "--cut-from", "videos"],
            "give --force",
        ),
        (["fewshot", "--list", "none.txt", "--output", "out"], "none.txt"),
        (["fewshot", "--list", "full.txt", "--output", "out", "--shots", "3"], "class 0 has 1 videos"),
        (["fewshot", "--list", "full.txt", "--output", "out", "--shots", "1", "1"], "--shots"),
        (["fewshot", "--list", "full.txt", "--output", "out", "--shots", "1", "--length", "1"], "--length"),
        (["fewshot", "--list", "full.txt", "--output", "out", "--length", "x"], "--length must be a whole number"),
    ],
)
def test_failures_are_one_clear_line(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """The status is 2, exactly one line names file and line or the option, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "videos/a/1.mp4", "videos/b/2.mp4", "taken/labels.csv")
    write(tmp_path / "bad.csv", "label,youtube_id,time_start,time_end,split\narguing,a,x,1,test\n")
    write(tmp_path / "good.csv", "label,youtube_id,time_start,time_end,split\narguing,a,0,1,test\n")
    write(tmp_path / "full.txt", "a/1.mp4 0\nb/2.mp4 1\n")
    write(tmp_path / "net" / "activity_net.json", '{"database": {"a": 1}}')
    segment = '{"label": "x", "segment": [0, 1]}'
    content = f'{{"database": {{"a": {{"subset": "training", "annotations": [{segment}]}}}}}}'
    write(tmp_path / "net2" / "activity_net.json", content)
    before = sorted(tmp_path.rglob("*"))
    status, _, err = run(capsys, *arguments)
    errors = [line for line in err.splitlines() if line.startswith("mote-fast: error: ")]
    assert status == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("arguments", [[], ["nosuch"], ["folder"]])
def test_bad_usage_exits_with_2(arguments: list[str], capsys: Captured) -> None:
    """Arguments that argparse refuses give the same status."""
    with pytest.raises(SystemExit) as exit_info:
        main(["prepare", *arguments])
    assert exit_info.value.code == 2
    assert "usage:" in capsys.readouterr().err
