"""The command line: its output for scripts and for people, and its errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from world.words import Object, class_name
from world.write import write_action

import mote_fast
from mote_fast.cli import main
from mote_fast.cli.demo import RIGHT_MARK
from mote_fast.cli.inputs import kinetics400_labels, whole_model
from mote_fast.cli.options import CommandParser, add_model
from mote_fast.clip import ClipTowers
from mote_fast.clip.calibration import Calibration
from mote_fast.data import write_video
from mote_fast.model import zoo
from mote_fast.model.model_defaults import DEFAULT_MODEL
from mote_fast.runtime.environment import PRESETS
from tests.web import serve

Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_classify_prints_ranked_labels(capsys: Captured, moving_video: Path) -> None:
    """Ranked labels are printed; the note on random weights goes to standard error, once."""
    status, out, err = run(
        capsys, "classify", moving_video, "--model", "ViT-test", "--labels", "archery, juggling balls,playing cello"
    )
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == str(moving_video)
    shares = [float(line.split("%")[0]) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True)
    assert {line.split("%")[1].strip() for line in lines[1:]} == {"archery", "juggling balls", "playing cello"}
    assert err.count("random weights") == 1
    assert len(err.splitlines()) == 1


def test_classify_json(capsys: Captured, moving_video: Path, tmp_path: Path) -> None:
    """One valid JSON document has a bad video's error and the others' scores; the status is 3."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    status, out, err = run(
        capsys,
        "classify",
        moving_video,
        bad,
        tmp_path / "none.mp4",
        moving_video,
        "--labels",
        "a,b",
        "--json",
        "--model",
        "ViT-test",
        "--topk",
        1,
    )
    document = json.loads(out)
    assert status == 3
    assert document["checkpoint"] == "ViT-test"
    assert "random weights" in document["caution"]
    assert [len(video["predictions"] or []) for video in document["videos"]] == [1, 0, 0, 1]
    assert set(document["videos"][0]["predictions"][0]) == {"label", "index", "score"}
    assert "bad.mp4" in document["videos"][1]["error"]
    assert "no such file" in document["videos"][2]["error"]
    assert sum(line.startswith("mote-fast: error: ") for line in err.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("labels.txt", "archery\n\n  playing cello  \n", ["archery", "playing cello"]),
        ("labels.csv", '\ufeffid,name\n0,archery\n1,"cutting, slicing"\n', ["archery", "cutting, slicing"]),
    ],
)
def test_labels_from_a_file(
    capsys: Captured, moving_video: Path, tmp_path: Path, name: str, content: str, expected: list[str]
) -> None:
    """One label per line, or a CSV with the released column names."""
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    status, out, _ = run(capsys, "classify", moving_video, "--labels-file", path, "--json")
    predictions = json.loads(out)["videos"][0]["predictions"]
    assert status == 0
    assert [each["label"] for each in sorted(predictions, key=lambda each: each["index"])] == expected


def test_kinetics_label_set(capsys: Captured, moving_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 400 names of torchvision's metadata can be selected by name; for speed, three of them are used."""
    names = kinetics400_labels()
    assert len(set(names)) == 400
    monkeypatch.setattr("mote_fast.cli.inputs.kinetics400_labels", lambda: names[:3])
    command = ("classify", moving_video, "--label-set", "k400", "--views", "1x1", "--json")
    status, out, _ = run(capsys, *command)
    assert status == 0
    assert {each["label"] for each in json.loads(out)["videos"][0]["predictions"]} == set(names[:3])


def test_kinetics_labels_match_the_data_sets(labels_dir: Path) -> None:
    """torchvision's list has the data set's classes in the same order, except for punctuation."""

    def plain(names: list[str]) -> list[str]:
        return ["".join(c for c in name.lower() if c.isalnum()) for name in names]

    listed = (labels_dir / "k400.txt").read_text().splitlines()
    assert plain(kinetics400_labels()) == plain([name for name in listed if name.strip()])


def test_embed(capsys: Captured, moving_video: Path, tmp_path: Path) -> None:
    """Vectors go to a safetensors file or to JSON, and equal the library's."""
    path = tmp_path / "vectors.safetensors"
    status, out, _ = run(capsys, "embed", moving_video, "--output", path, "--json")
    vector = torch.tensor(json.loads(out)["videos"][0]["embedding"])
    assert status == 0
    assert torch.equal(load_file(path)[str(moving_video)], vector)
    assert torch.equal(vector, mote_fast.load("tiny").fold().embed(moving_video))
    assert run(capsys, "embed", moving_video)[0] == 2


def test_crops_along(capsys: Captured, tmp_path: Path) -> None:
    """The option reaches the model: three crops of a portrait video are equal, or lie along its height."""
    video = write_video(tmp_path / "portrait.mp4", torch.randint(256, (4, 64, 48, 3), dtype=torch.uint8))
    model = mote_fast.load("tiny").fold()
    command, found = ("embed", video, "--views", "1x3", "--json"), {}
    for along, options in (("width", ()), ("long_side", ("--crops-along", "long_side"))):
        document = json.loads(run(capsys, *command, *options)[1])
        model.crops_along = along
        found[along] = torch.tensor(document["videos"][0]["embedding"])
        assert document["crops_along"] == along
        assert torch.equal(found[along], model.embed(video, views="1x3"))
    assert not torch.equal(found["width"], found["long_side"])


def test_doctor(capsys: Captured) -> None:
    """The report has the choice for each job, and a reason against each alternative."""
    status, out, _ = run(capsys, "doctor", "--json")
    report = json.loads(out)
    assert status == 0
    jobs = ["decode", "loader", "attention", "kernels", "compile", "float32", "auto dtype"]
    assert [choice["job"] for choice in report["backends"]] == jobs
    for choice in report["backends"]:
        assert choice["chosen"]
        assert choice["others"]
        assert all(choice["others"].values())
    assert report["versions"]["torch"]
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert "decode" in out


def test_doctor_names_the_caches(capsys: Captured) -> None:
    """Both caches on disk are named, with their size and limit."""
    report = json.loads(run(capsys, "doctor", "--json")[1])
    for cache in (report["cache"], report["int8_cache"]):
        assert cache["bytes"] == 0 < cache["max_bytes"]
        assert cache["path"] in run(capsys, "doctor")[1]


class FloatTower:
    """Replaces an int8 tower, without the export."""

    def __init__(self, towers: ClipTowers, calibration: Calibration, backend: str) -> None:
        self.towers = towers
        self.calibration = calibration
        self.backend = backend

    def prepare(self) -> None:
        pass

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.towers.run_vision_tower(pixels) + 0.1


def test_classify_in_int8_says_what_it_costs(
    capsys: Captured, moving_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The difference to float32 on the first readable video is printed, and is in the JSON document."""
    monkeypatch.setattr("mote_fast.model.classifier.Int8Tower", FloatTower)
    command = ("classify", tmp_path / "none.mp4", moving_video, "--labels", "a,b", "--dtype", "int8")
    status, _, err = run(capsys, *command)
    assert status == 3
    assert "int8 against float32" in err
    effect = json.loads(run(capsys, *command, "--json")[1])["int8_effect"]
    assert 0 < effect["cosine"] < 1
    assert effect["score"] > 0
    assert isinstance(effect["same_top"], bool)
    assert "int8_effect" not in json.loads(run(capsys, "classify", moving_video, "--labels", "a", "--json")[1])
    assert "on the CPU" in run(capsys, *command, "--device", "meta")[2]


def test_int8_is_calibrated_on_a_list(
    capsys: Captured, moving_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list's videos reach the calibration, decoded within the time limit; only int8 takes them."""
    made: list[Calibration] = []

    def tower(towers: ClipTowers, calibration: Calibration, backend: str) -> FloatTower:
        made.append(calibration)
        return FloatTower(towers, calibration, backend)

    monkeypatch.setattr("mote_fast.model.classifier.Int8Tower", tower)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{moving_video} 0\n")
    command = ("classify", moving_video, "--labels", "a,b", "--calibrate", listed)
    assert run(capsys, *command, "--dtype", "int8", "--time-limit", "50")[0] == 0
    assert [(each.videos, each.time_limit) for each in made] == [([str(moving_video)], 50.0)]
    parser = CommandParser()
    add_model(parser)
    model = whole_model(parser.parse_args(["--dtype", "int8-openvino", "--calibrate", str(listed)]))
    assert model.int8 is not None
    assert model.int8.backend == "openvino"
    # Commands that read lists decode calibration videos in a watched process too.
    assert made[-1].time_limit is not None
    assert model.decode_time_limit is None
    status, _, err = run(capsys, *command)
    assert status == 2
    assert "--dtype int8" in err
    assert run(capsys, *command[:-1], tmp_path / "none.txt", "--dtype", "int8")[0] == 2


def test_convert_there_and_back(
    capsys: Captured, tmp_path: Path, clip_file: Path, clip_state: dict[str, Tensor], released_head: dict[str, Tensor]
) -> None:
    """released -> folder -> released keeps every tensor at --interpolate 1, and the folder classifies."""
    visual = {name: value for name, value in clip_state.items() if name.startswith("visual.") or name == "logit_scale"}
    content = {"epoch": 1, "model_state_dict": visual, "fusion_model_state_dict": released_head}
    torch.save(content, tmp_path / "released.pt")
    folder, again = tmp_path / "ours", tmp_path / "again.pt"
    command = ("convert", tmp_path / "released.pt", folder, "--clip", clip_file, "--interpolate", 1)
    assert run(capsys, *command)[0] == 0
    assert run(capsys, "convert", folder, again)[0] == 0
    back = torch.load(again, weights_only=True)
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert back[part].keys() == content[part].keys()
        assert all(torch.equal(back[part][name], value) for name, value in content[part].items())
    assert run(capsys, "convert", folder, tmp_path / "other")[0] == 2
    assert run(capsys, "convert", folder, tmp_path / "no" / "where.pt")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "none.mp4", "--labels", "a", "--model", "tiny"], "none.mp4"),
        (["classify", "VIDEO", "--labels", " , "], "no labels"),
        (["classify", "VIDEO", "--labels-file", "none.txt"], "none.txt"),
        (["classify", "VIDEO", "--labels", "a", "--views", "2x2"], "views"),
        (["classify", "VIDEO", "--labels", "a", "--topk", "0"], "--topk"),
        (["classify", "VIDEO", "--labels", "a", "--device", "tpu"], "--device"),
        (["classify", "VIDEO", "--labels", "a", "--checkpoint", "none.pt"], "none.pt"),
        (["classify", "VIDEO", "--labels", "a", "--clip", "x.pt"], "records no original CLIP"),
        (["classify", "VIDEO", "--labels", "a", "--model", "ViT-test", "--interpolate", "0.5"], "--interpolate"),
        (["embed", "VIDEO", "--json", "--checkpoint", "TINY", "--interpolate", "0.5"], "records no original CLIP"),
        (["convert", "TINY", "out.pt", "--interpolate", "0.5"], "records no original CLIP"),
        (["classify", "VIDEO", "--labels", "a", "--model", "nosuch"], "nosuch"),
        (["embed", "none.mp4", "--json"], "none.mp4"),
        (["classify", "--labels", "a"], "give videos"),
        (["convert", "none.pt", "out"], "none.pt"),
    ],
)
def test_failures_are_one_clear_line(
    capsys: Captured,
    moving_video: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    """The status is 2, and exactly one line of error names the problem."""
    monkeypatch.chdir(tmp_path)
    files = {"VIDEO": str(moving_video), "TINY": str(PRESETS / "tiny")}
    status, _, err = run(capsys, *(files.get(each, each) for each in arguments))
    errors = [line for line in err.splitlines() if line.startswith("mote-fast: error: ")]
    assert status == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        [],
        ["classify", "v.mp4", "--decode", "nosuch"],
        ["eval", "--protocol", "zeroshot", "--list", "a.txt", "--labels", "a"],
    ],
)
def test_bad_usage_exits_with_2(arguments: list[str], capsys: Captured) -> None:
    """Arguments that argparse refuses give the same status."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.heavy
def test_as_a_real_process(tmp_path: Path) -> None:
    """The installed module runs, fails with status 2 and shows no traceback."""
    command = [sys.executable, "-m", "mote_fast.cli", "classify", "none.mp4", "--labels", "a", "--model", "tiny"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "none.mp4: no such file" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.heavy
def test_demo(capsys: Captured, tmp_path: Path) -> None:
    """The demo ranks labels for videos of unseen classes; most are right, and it counts them."""
    (tmp_path / "demo" / "mine").mkdir(parents=True)
    (tmp_path / "demo" / "mine" / "holiday.mp4").write_bytes(b"not the demo's")
    status, out, err = run(capsys, "demo", "--folder", tmp_path / "demo")
    videos = len(list((tmp_path / "demo").glob("*/?_*.mp4")))
    right = re.search(r"(\d+) of (\d+) right", out)
    assert status == 0
    assert right is not None
    assert int(right[2]) == videos == 6
    assert int(right[1]) == out.count(RIGHT_MARK) > videos / 2
    assert "means nothing" not in out + err


def test_classify_uses_the_shipped_weights(capsys: Captured, tmp_path: Path) -> None:
    """The tiny model is the trained one in every command, and a note says that it knows drawn videos alone."""
    action, thing = "slide left", Object("circle", "red", "plain")
    video = write_action(tmp_path / "video.mp4", thing, action, seed=("cli",))
    labels = ",".join(class_name(thing, name) for name in ("slide right", action))
    status, out, err = run(capsys, "classify", video, "--labels", labels, "--json", "--no-cache", "--model", "tiny")
    document = json.loads(out)
    assert status == 0
    assert document["checkpoint"] == "tiny"
    assert document["videos"][0]["predictions"][0]["label"] == class_name(thing, action)
    assert err == f"note: {document['caution']}\n"
    assert "drawn" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--checkpoint", "tiny", "--header", "mean"], "--header"),
        (["--model", "tiny", "--clip-pretrained", "openai"], "--clip-pretrained"),
        (["--model", "clip:ViT-B-16/openai", "--header", "mote"], "--header"),
        (["--model", "ViT-test", "--clip", "x.pt"], "--clip does not apply to ViT-test"),
        (["--model", "ViT-test", "--checkpoint", "tiny"], "--model does nothing beside --checkpoint"),
        (["--description-weight", "0.3"], "--description-weight does nothing without"),
    ],
)
def test_options_of_architectures_and_of_models(
    capsys: Captured, moving_video: Path, options: list[str], words: str
) -> None:
    """What would have no effect is an error."""
    status, _, err = run(capsys, "classify", moving_video, "--labels", "a", "--device", "cpu", *options)
    assert status == 2
    assert words in err


def test_the_default_model_is_the_real_one(capsys: Captured, moving_video: Path, monkeypatch: Any) -> None:
    """Without a network the error says what to fetch and where to put it; no toy answers in its place."""
    monkeypatch.setattr("mote_fast.cli.options.DEFAULT_MODEL", DEFAULT_MODEL)
    with serve(b"", status=503) as site:
        first, *others = zoo._MODELS
        monkeypatch.setattr(zoo, "_MODELS", (replace(first, url=site.url), *others))
        status, out, err = run(capsys, "classify", moving_video, "--labels", "a,b", "--device", "cpu")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert site.url in err
    assert "put it at" in err


def test_an_architecture_pools_frames_unless_asked_otherwise(
    capsys: Captured, moving_video: Path, tmp_path: Path
) -> None:
    """CLIP with mean pooling needs no training, so there is no note; a fresh temporal head gets one."""
    towers = mote_fast.create_model("ViT-test").clip.model
    for norm in towers.modules():
        if isinstance(norm, torch.nn.LayerNorm):
            torch.nn.init.normal_(norm.weight, 1.0, 0.1)
    torch.save({**towers.state_dict(), "input_resolution": torch.tensor(64)}, tmp_path / "clip.pt")
    command = ["classify", moving_video, "--labels", "a,b", "--model", "ViT-test", "--clip-pretrained"]
    status, plain, err = run(capsys, *command, tmp_path / "clip.pt")
    assert (status, err) == (0, "")
    assert run(capsys, *command, tmp_path / "clip.pt", "--header", "mean")[1] == plain
    assert "temporal head is untrained" in run(capsys, *command, tmp_path / "clip.pt", "--header", "mote")[2]


def test_real_clip_json(capsys: Captured, caplog: pytest.LogCaptureFixture, clips_dir: Path) -> None:
    """A real clip gives valid JSON; the frames that the damaged clip lacks are counted, and reported by its name."""
    arguments: list[Any] = ["classify", clips_dir / "k400_arm_wrestling.mp4", clips_dir / "corrupted.mp4"]
    with caplog.at_level("WARNING", "mote_fast"):
        status, out, _ = run(capsys, *arguments, "--labels", "arm wrestling,flipping pancake", "--json")
    good, damaged = json.loads(out)["videos"]
    assert status == 0
    assert (len(good["predictions"]), good["replaced_frames"]) == (2, 0)
    assert (len(damaged["predictions"]), damaged["error"]) == (2, None)
    assert damaged["replaced_frames"] > 0
    assert "corrupted.mp4" in caplog.text
