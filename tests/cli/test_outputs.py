"""Outputs of all commands: checked before the work, JSON that is JSON, and names that are not UTF-8."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import mote_fast
from mote_fast.cli import inputs
from mote_fast.cli.program import PIPE_CLOSED
from tests.cli.test_eval import Captured, run
from tests.cli.test_eval import videos as videos
from tests.full_disk import files_of_at_most

# A name in Latin-1, as Python decodes it from the command line and from folders.
ODD = os.fsdecode(b"pi\xf1")


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def commands(videos: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Each command without its output option, and the names of what it writes there."""
    lists = ["--list", str(videos / "one.txt")]
    named = [*lists, "--labels-file", str(videos / "names.csv"), "--root", str(videos)]
    clip = str(videos / "data" / "class0" / "0.mp4")
    return {
        "eval": (["eval", "--protocol", "zeroshot", *named, "--output"], ["result.json", "predictions.parquet"]),
        "classes": (["analyse", "classes", *named, "--output"], ["classes.csv", "classes.png"]),
        "similarity": (["analyse", "similarity", *lists, "--output"], ["similarity.csv"]),
        "attention": (["analyse", "attention", clip, "--output"], ["attention.png"]),
        "prepare": (["prepare", "folder", "--root", str(videos / "data"), "--output"], ["labels.csv", "report.json"]),
        "fewshot": (["prepare", "fewshot", *lists, "--shots", "1", "--output"], ["fewshot_K1_seed0.txt"]),
        "shards": (["prepare", "shards", str(videos / "one.txt"), "--root", str(videos)], ["shards.json"]),
        "reencode": (["prepare", "reencode", str(videos / "data")], ["faults.jsonl"]),
        "demo": (["demo", "--folder"], []),
    }


COMMANDS = ("eval", "classes", "similarity", "attention", "prepare", "fewshot", "shards", "reencode", "demo")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail as soon as a model is made or a video is looked at."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the work began before the output was checked")

    for name in ("inputs.load", "inputs.create_model", "convert.load", "demo.load", "prepare_shards.write_shards"):
        monkeypatch.setattr(f"mote_fast.cli.{name}", refuse)
    monkeypatch.setattr("mote_fast.cli.prepare_reencode.reencode", refuse)
    monkeypatch.setattr("mote_fast.prepare.write_data_set.scan_videos", refuse)


def refused(capsys: Captured, arguments: list[str], message: str) -> None:
    status, out, err = run(capsys, *arguments)
    errors = [line for line in err.splitlines() if line.startswith("mote-fast: error: ")]
    assert (status, out, len(errors)) == (2, "", 1)
    assert message in errors[0]
    assert "Traceback" not in err


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", COMMANDS)
def test_folders_are_checked_before_the_work(capsys: Captured, videos: Path, tmp_path: Path, name: str) -> None:
    """A folder that takes no files, a file in its place, a full disk, a folder in place of a file."""
    arguments, files = commands(videos)[name]
    if name == "prepare":
        arguments = [*arguments[:-1], "--scan", "--output"]
    (tmp_path / "file").write_text("kept")
    for target in ("/proc/out", str(tmp_path / "file"), str(tmp_path / "file" / "below")):
        refused(capsys, [*arguments, target], target)
    (tmp_path / "small").mkdir()
    # A few-shot list of this test fits.
    if name != "fewshot":
        with files_of_at_most(100):
            refused(capsys, [*arguments, str(tmp_path / "small")], "small")
    for file in files:
        (tmp_path / file / file).mkdir(parents=True)
        force = ["--force"] if name in ("prepare", "fewshot") else []
        refused(capsys, [*arguments, str(tmp_path / file), *force], file)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("command", [["embed", "v.mp4", "--output"], ["convert", "FOLDER"], ["convert", "tiny"]])
def test_files_are_checked_before_the_work(capsys: Captured, tmp_path: Path, command: list[str]) -> None:
    """The same for a file, or a model folder."""
    (tmp_path / "m").mkdir()
    (tmp_path / "taken.pt" / "thesis").mkdir(parents=True)
    (tmp_path / "file").write_text("kept")
    given = [str(tmp_path / "m") if each == "FOLDER" else each for each in command]
    for target in ("/proc/w.pt", str(tmp_path / "taken.pt"), str(tmp_path / "file" / "w.pt")):
        refused(capsys, [*given, target], target)
    with files_of_at_most(100):
        refused(capsys, [*given, str(tmp_path / "w.pt")], "w.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "m", "taken.pt"]


def test_embeddings_appear_whole(capsys: Captured, moving_video: Path, tmp_path: Path) -> None:
    """In a folder that did not exist; one that does not fit is an error of one line, and leaves nothing."""
    path = tmp_path / "new" / "vectors.safetensors"
    assert run(capsys, "embed", moving_video, "--output", path)[0] == 0
    before = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mote_fast.cli.result_writers.check_file", lambda path: None)
        with files_of_at_most(100):
            refused(capsys, ["embed", str(moving_video), "--output", str(path)], "cannot be written")
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_names_that_are_not_utf8(capsys: Captured, moving_video: Path, tmp_path: Path) -> None:
    """Such a path is read, printed and named in JSON; such a label is an error before the work."""
    odd = tmp_path / f"{ODD}.mp4"
    shutil.copy(moving_video, odd)
    for json_option in ((), ("--json",)):
        status, out, _ = run(capsys, "classify", odd, "--labels", "a,b", *json_option)
        assert status == 0
        assert r"pi\udcf1.mp4" in out
    assert strict(out)["videos"][0]["video"] == str(odd)
    assert run(capsys, "embed", odd, "--output", tmp_path / "v.safetensors")[0] == 0
    assert [Path(name).name for name in load_file(tmp_path / "v.safetensors")] == [r"pi\udcf1.mp4"]
    status, out, _ = run(capsys, "analyse", "attention", odd, "--output", tmp_path / "plots", "--json")
    assert (status, strict(out)["video"]) == (0, str(odd))
    refused(capsys, ["classify", str(odd), "--labels", f"a,{ODD}"], "labels[1]")


def test_evaluation_of_names_that_are_not_utf8(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """All reports are written; result.json has the path itself, the others show its byte."""
    shutil.copytree(videos / "data", tmp_path / "data")
    (tmp_path / "data" / "class1" / f"{ODD}.mp4").write_bytes(b"no video")
    status, out, _ = run(
        capsys, "eval", "--protocol", "zeroshot", "--list", tmp_path / "data", "--workers", 0, "--views", "1x1",
        "--output", tmp_path / "out", "--json",
    )  # fmt: skip
    assert status == 3
    assert strict(out) == strict((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert Path(strict(out)["failures"][0]["path"]).name == f"{ODD}.mp4"
    assert r"pi\udcf1.mp4" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    table = pq.read_table(tmp_path / "out" / "predictions.parquet")
    assert sum(path.endswith(r"pi\udcf1.mp4") for path in table["path"].to_pylist()) == 1


@pytest.mark.parametrize("command", ["classify", "eval", "embed", "similarity", "attention"])
def test_a_model_of_nan_is_an_error(
    capsys: Captured, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Neither a ranking nor an accuracy: its file is refused, and so are its outputs if it comes another way."""
    model = mote_fast.load("tiny")
    with torch.no_grad():
        model.head.temporal_blocks()[0].attn.out_proj.weight.fill_(float("nan"))
    model.save(tmp_path / "nan")
    clip = str(videos / "data" / "class0" / "0.mp4")
    given = {
        "classify": ["classify", clip, "--labels", "a,b", "--json"],
        "embed": ["embed", clip, "--json"],
        "attention": ["analyse", "attention", clip, "--output", str(tmp_path / "out")],
    }.get(command) or [*commands(videos)[command][0], str(tmp_path / "out")]
    workers = ["--workers", "0"] if command in ("eval", "similarity") else []
    base = ["--root", str(videos)] if command == "similarity" else []
    refused(capsys, [*given, *workers, *base, "--checkpoint", str(tmp_path / "nan")], "out_proj.weight holds NaN")
    monkeypatch.setattr(inputs, "load", lambda *_, **__: model)
    refused(capsys, [*given, *workers, *base], "not finite")
    assert not (tmp_path / "out" / "result.json").exists()


def test_row_order_gives_the_index_that_eval_uses(capsys: Captured, videos: Path, tmp_path: Path) -> None:
    """classify's index is the class number of the file, whatever the order of its rows."""
    (tmp_path / "labels.csv").write_text("id,name\r\n2,third\r\n0,first\r\n1,second\r\n")
    clip = videos / "data" / "class0" / "0.mp4"
    _, out, _ = run(capsys, "classify", clip, "--labels-file", tmp_path / "labels.csv", "--json")
    found = {each["label"]: each["index"] for each in strict(out)["videos"][0]["predictions"]}
    assert found == {"first": 0, "second": 1, "third": 2}


PROGRAM = "import sys; from mote_fast.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.heavy
@pytest.mark.parametrize("arguments", [["configs"], ["prepare", "fewshot"]])
def test_output_that_nobody_reads(arguments: list[str], tmp_path: Path) -> None:
    """Nothing but the status tells that a reader such as ``head`` has ended; a full disk is an error of one line."""
    if "fewshot" in arguments:
        (tmp_path / "list.txt").write_text("a.mp4 0\n")
        output = ["--output", str(tmp_path / "out"), "--shots", "1"]
        arguments = [*arguments, "--list", str(tmp_path / "list.txt"), *output]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (PIPE_CLOSED, "")
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("mote-fast: error: standard output cannot be written")
        assert done.stderr.count("\n") == 1
