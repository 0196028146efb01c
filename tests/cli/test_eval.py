"""``mote-fast eval``, and ``tradeoff`` of its results: from video files and lists to the report, and errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import mote_fast
from mote_fast.cli import main
from mote_fast.data import ClipRecipe, VideoDataset, VideoLoader, make_loader, write_video

Captured = pytest.CaptureFixture[str]
CLASSES = 3


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def evaluate(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    """Run ``eval`` in this process alone, on few frames."""
    return run(capsys, "eval", "--workers", 0, "--frames", 4, "--views", "2x1", "--device", "cpu", *arguments)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLASSES folders of two short videos each, with lists, names and one file that is not a video."""
    root = tmp_path_factory.mktemp("eval")
    generator = torch.Generator().manual_seed(0)
    for label in range(CLASSES):
        (root / "data" / f"class{label}").mkdir(parents=True)
        for number in range(2):
            frames = torch.randint(0, 256, (6, 48, 64, 3), dtype=torch.uint8, generator=generator)
            write_video(root / "data" / f"class{label}" / f"{number}.mp4", frames)
    (root / "bad.mp4").write_bytes(b"not a video")
    (root / "names.csv").write_text("id,name\n" + "".join(f"{label},thing {label}\n" for label in range(CLASSES)))
    lines = [f"data/class{label}/{number}.mp4 {label}\n" for label in range(CLASSES) for number in range(2)]
    (root / "one.txt").write_text("".join(lines[:4]))
    (root / "two.txt").write_text("".join(lines[2:]))
    (root / "broken.txt").write_text("".join([*lines[:4], "bad.mp4 1\n"]))
    return root


def test_crops_along(capsys: Captured, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option reaches the clips' recipe, and the result states it: the accuracies belong to it."""
    recipes: list[ClipRecipe] = []

    def recording(dataset: VideoDataset, *arguments: Any) -> VideoLoader:
        recipes.append(dataset.recipe)
        return make_loader(dataset, *arguments)

    monkeypatch.setattr("mote_fast.cli.inputs.make_loader", recording)
    command = ("--protocol", "closeset", "--list", videos / "data", "--json", "--crops-along")
    stated = [json.loads(evaluate(capsys, *command, along)[1])["crops_along"] for along in ("width", "long_side")]
    assert stated == [recipe.crops_along for recipe in recipes] == ["width", "long_side"]


def test_own_prompts(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """Templates and descriptions change the result, which states them; files that do not fit end with status 2."""
    (tmp_path / "templates.txt").write_text("look, {}\n")
    (tmp_path / "told.json").write_text('{"class0": ["gray noise"], "class1": ["a dog"], "class2": ["the sea"]}')
    command = ("--protocol", "zeroshot", "--list", videos / "data", "--json", "--output", tmp_path / "out")
    scores = []
    for options in ((), ("--templates", tmp_path / "templates.txt"), ("--descriptions", tmp_path / "told.json")):
        status, out, _ = evaluate(capsys, *command, *options)
        assert status == 0
        scores.append(pq.read_table(tmp_path / "out" / "predictions.parquet")["full_class_scores"].to_pylist())
    assert scores[0] != scores[1] != scores[2] != scores[0]
    document = json.loads(out)
    assert (document["templates"], document["descriptions"]) == (None, str(tmp_path / "told.json"))
    assert document["description_weight"] == 0.5
    for options in (("--descriptions", tmp_path / "templates.txt"), ("--description-weight", 2)):
        status, _, err = evaluate(capsys, *command, *options)
        assert (status, err.count("\n")) == (2, 1)


def test_the_share_of_a_folder(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """A folder that train.py wrote is interpolated with the CLIP of its record, and the result states the share."""
    torch.save(mote_fast.create_model("ViT-test").clip.model.state_dict(), tmp_path / "clip.pt")
    towers = {"clip_pretrained": tmp_path / "clip.pt", "activation": "quick_gelu"}
    mote_fast.create_model("ViT-test", **towers).save(tmp_path / "model")
    command = ("--protocol", "closeset", "--list", videos / "data", "--json", "--checkpoint", tmp_path / "model")
    assert json.loads(evaluate(capsys, *command)[1])["tuned_share"] == 1.0
    mixed = evaluate(capsys, *command, "--clip", tmp_path / "clip.pt", "--interpolate", 0.25)
    assert json.loads(mixed[1])["tuned_share"] == 0.25
    lists = {"val_list": str(videos / "one.txt"), "labels": str(videos / "names.csv"), "val_root": str(videos)}
    (tmp_path / "row.yaml").write_text(json.dumps({"data": lists, "model": {"interpolate": 0.75}}))
    command = ("--protocol", "closeset", "--config", tmp_path / "row.yaml", "--json", *command[-2:])
    assert json.loads(evaluate(capsys, *command, "--clip", tmp_path / "clip.pt")[1])["tuned_share"] == 0.75
    assert "give clip" in evaluate(capsys, *command)[2]


def test_several_labels(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """Lists of videos with several labels are measured by average precision, in every file; accuracies need one."""
    lines = ["data/class0/0.mp4 0,2", "data/class0/1.mp4 0 1", "data/class1/0.mp4 1", "bad.mp4 0,1"]
    (tmp_path / "several.txt").write_text("\n".join(lines))
    data = ("--list", tmp_path / "several.txt", "--labels-file", videos / "names.csv", "--root", videos)
    status, out, _ = evaluate(
        capsys, "--protocol", "closeset", *data, "--output", tmp_path / "out", "--json", "--workers", 1
    )
    document = json.loads(out)
    assert status == 3
    (split,) = document["splits"]
    assert (split["videos"], split["failed"]) == (4, 1)
    for score in ("running", "full-class", "cosine"):
        assert 0 < split[score]["all"]["map"] <= split[score]["readable"]["map"] <= 100
        assert document["mean"][score]["readable"]["map"]["mean"] == split[score]["readable"]["map"]
    table = (tmp_path / "out" / "per_class.csv").read_text().splitlines()
    assert table[0] == "split,class,name,videos,failed,running_ap,full_class_ap,cosine_ap"
    assert table[3].startswith("several,2,thing 2,1,0,")
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert [row["labels"] for row in rows] == [[0, 2], [0, 1], [1], [0, 1]]
    assert "| several | 3 | 4 | 1 | cosine |" in (tmp_path / "out" / "report.md").read_text()
    for command, said in (
        (("eval", "--protocol", "halfclass", *data), "halfclass protocol needs one label"),
        (("eval", "--protocol", "closeset", *data, "--list", videos / "one.txt"), "evaluate them apart"),
        (("tradeoff", tmp_path / "out"), "several labels, so there is no accuracy"),
        (("prepare", "fewshot", "--list", tmp_path / "several.txt", "--output", tmp_path / "few"), "has 2 labels"),
        (("prepare", "shards", tmp_path / "several.txt", tmp_path / "shards"), "has 2 labels"),
        (("analyse", "classes", *data, "--output", tmp_path / "plots"), "has 2 labels"),
    ):
        status, _, err = run(capsys, *command)
        assert (status, err.count("\n")) == (2, 1)
        assert said in err


def test_two_splits(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """Files and standard output have each split's accuracies and their mean."""
    lists = (videos / "one.txt", videos / "two.txt")
    data = ("--list", *lists, "--labels-file", videos / "names.csv", "--root", videos, "--dataset", "made up")
    status, out, err = evaluate(
        capsys, "--protocol", "zeroshot", *data, "--output", tmp_path / "out", "--json", "--model", "ViT-test"
    )
    document = json.loads(out)
    assert status == 0
    assert "random weights" in err
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == document
    assert (document["dataset"], document["views"], document["checkpoint"]) == ("made up", "2x1", "ViT-test")
    assert [(each["name"], each["videos"], each["failed"]) for each in document["splits"]] == [
        ("one", 4, 0),
        ("two", 4, 0),
    ]
    table = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    right = [row["running_top5"][0] == row["label"] for row in table]
    for split, hits in zip(document["splits"], (right[:4], right[4:]), strict=True):
        assert split["running"]["readable"]["top1"] == pytest.approx(25.0 * sum(hits))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "result.json",
        "report.md",
        "per_class.csv",
        "predictions.parquet",
    }
    status, out, _ = evaluate(capsys, "--protocol", "zeroshot", *data, "--model", "ViT-test")
    assert status == 0
    assert "mean of 2" in out
    assert f"{document['mean']['running']['readable']['top1']['mean']:.2f} ±" in out


def test_nothing_is_decoded_in_this_process(capsys: Captured, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without workers too: a file that crashes or hangs its decoder must not take the evaluation with it."""

    def opened(*_: object) -> None:
        raise AssertionError("a video was opened in this process")

    monkeypatch.setattr("mote_fast.data.decoding.packet_index.scan", opened)
    status, _, err = evaluate(capsys, "--protocol", "closeset", "--list", videos / "data")
    assert (status, "AssertionError" in err) == (0, False)


def test_a_bad_video(capsys: Captured, videos: Path) -> None:
    """The others are evaluated, the bad one is counted and named with its reason; the status is 3."""
    data = ("--list", videos / "broken.txt", "--labels-file", videos / "names.csv", "--root", videos)
    status, out, err = evaluate(capsys, "--protocol", "fewshot", *data, "--json")
    document = json.loads(out)
    (split,) = document["splits"]
    assert status == 3
    assert (split["videos"], split["failed"]) == (5, 1)
    assert split["running"]["all"]["top5"] == pytest.approx(80.0)
    assert split["running"]["readable"]["top5"] == 100.0
    (failure,) = document["failures"]
    assert failure["path"].endswith("bad.mp4")
    assert failure["reason"]
    assert "1 videos could not be read" in err


@pytest.mark.heavy
def test_a_folder_of_classes(capsys: Captured, videos: Path) -> None:
    """A folder per class needs neither list nor names; worker processes give the same result."""
    arguments = ("--protocol", "closeset", "--list", videos / "data", "--json")
    status, out, _ = evaluate(capsys, *arguments)
    assert status == 0
    document, other = json.loads(out), json.loads(evaluate(capsys, *arguments, "--workers", 1)[1])
    assert (document["dataset"], document["splits"][0]["classes"]) == ("data", CLASSES)
    assert other["splits"] == document["splits"]


def test_trade_off_of_results(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """``tradeoff`` accepts the results of ``eval``."""
    means: dict[str, float] = {}
    for protocol in ("closeset", "zeroshot"):
        data = ("--list", videos / "data", "--dataset", protocol)
        out = evaluate(capsys, "--protocol", protocol, *data, "--output", tmp_path / protocol, "--json")[1]
        means[protocol] = json.loads(out)["mean"]["full-class"]["all"]["top5"]["mean"]
        # Top-1 of random weights may be 0; top-5 of three classes is not.
        document = json.loads(out)
        document["mean"]["full-class"]["all"]["top1"]["mean"] = means[protocol] / (2 if protocol == "closeset" else 1)
        (tmp_path / protocol / "result.json").write_text(json.dumps(document))
    results = [tmp_path / protocol for protocol in means]
    options = ("--score", "full-class", "--videos", "all")
    status, out, _ = run(capsys, "tradeoff", *results, *options, "--json")
    assert status == 0
    found: dict[str, Any] = json.loads(out)
    assert found["hm_zs"] == pytest.approx(100.0)
    assert found["score"] == pytest.approx(2 / (1 / 50 + 1 / 100))
    status, out, _ = run(capsys, "tradeoff", *results, *options)
    assert (status, "HM_ZS" in out, "66.67  trade-off" in out) == (0, True, True)


def test_mixed_label_sets(capsys: Captured, videos: Path) -> None:
    """Each list alone and among the classes of both; the result says that modulation was left out."""
    (videos / "other.csv").write_text("id,name\n" + "".join(f"{label},other {label}\n" for label in range(CLASSES)))
    names = ("--labels-file", videos / "names.csv", videos / "other.csv")
    (videos / "rest.txt").write_text("".join(f"data/class2/{number}.mp4 2\n" for number in range(2)))
    data = ("--list", videos / "one.txt", videos / "rest.txt", *names, "--root", videos, "--no-modulation")
    status, out, _ = evaluate(capsys, "--protocol", "mixed", *data, "--json")
    document = json.loads(out)
    assert (status, document["without_modulation"], document["dataset"]) == (0, True, "one+rest")
    assert [(each["name"], each["classes"]) for each in document["alone"]] == [("one", 3), ("rest", 3)]
    assert [(each["name"], each["classes"]) for each in document["splits"]] == [("one, mixed", 6), ("rest, mixed", 6)]
    status, out, _ = evaluate(capsys, "--protocol", "zeroshot", *data, "--json")
    assert json.loads(out)["splits"] == document["alone"]
    status, out, _ = evaluate(capsys, "--protocol", "mixed", *data)
    assert (status, "| one | 3 |" in out, "| one, mixed | 6 |" in out) == (0, True, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--list", "none.txt", "--labels-file", "NAMES"], "none.txt"),
        (["--list", "LIST"], "--labels-file"),
        (
            ["--list", "LIST", "--labels-file", "NAMES", "NAMES"],
            "--labels-file: give one file, or one for each of the 1 lists",
        ),
        (["--list", "LIST", "--labels-file", "NAMES", "--views", "2x2"], "views"),
        (["--list", "LIST", "--labels-file", "NAMES", "--batch-size", "0"], "--batch-size"),
        (["--list", "LIST", "--labels-file", "NAMES", "--device", "tpu"], "tpu"),
        (["--list", "LIST", "--labels-file", "NAMES", "--output", "LIST"], "--output"),
        (["--list", "LIST", "LIST", "--labels-file", "NAMES"], "different file names"),
        (["--list", "LIST", "--labels-file", "NAMES", "--protocol", "halfclass"], "half of 3 classes"),
        (["--list", "LIST", "--labels-file", "NAMES", "--protocol", "mixed"], "several lists"),
    ],
)
def test_failures_are_one_clear_line(capsys: Captured, videos: Path, arguments: list[str], message: str) -> None:
    """The status is 2, and one line of error names the problem, before any decoding."""
    files = {"LIST": str(videos / "one.txt"), "NAMES": str(videos / "names.csv")}
    given = [files.get(argument, argument) for argument in arguments]
    status, out, err = run(capsys, "eval", "--protocol", "zeroshot", "--workers", 0, *given)
    errors = [line for line in err.splitlines() if line.startswith("mote-fast: error: ")]
    assert (status, out) == (2, "")
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.slow
def test_under_torchrun(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """Three processes with decoding workers, the first one writing, give the result of one process."""
    data = ["--list", str(videos / "one.txt"), str(videos / "two.txt"), "--labels-file", str(videos / "names.csv")]
    data += ["--root", str(videos), "--protocol", "zeroshot", "--json"]
    alone = json.loads(evaluate(capsys, *data)[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    command += ["-m", "mote_fast.cli", "eval", *data, "--output", str(tmp_path / "out")]
    command += ["--frames", "4", "--model", "tiny"]
    command += ["--views", "2x1", "--device", "cpu", "--workers", "1"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert finished.returncode == 0, finished.stderr
    several = json.loads(finished.stdout)
    assert several["processes"] == 3
    for part in ("splits", "mean", "failures"):
        assert several[part] == alone[part]
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == several
