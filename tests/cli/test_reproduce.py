"""``mote-fast reproduce``: the paper's figures beside ours, on generated data and a small released checkpoint."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mote_fast.cli import main
from mote_fast.data import write_video
from mote_fast.evaluation.combine import harmonic_mean
from mote_fast.evaluation.reproduction import TEST_SETS
from tests.script_data import checkpoint

Captured = pytest.CaptureFixture[str]

CLASSES = ("juggling balls", "brush hair", "the cello")


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory, clip_state: dict[str, Tensor], released_head: dict[str, Tensor]
) -> Path:
    """All four data sets, of six videos each, and a released file."""
    root = tmp_path_factory.mktemp("reproduce")
    generator = torch.Generator().manual_seed(0)
    for test_set in TEST_SETS.values():
        lists, videos = root / "lists" / test_set.name, root / "videos" / test_set.name
        lists.mkdir(parents=True)
        videos.mkdir(parents=True)
        for number in range(6):
            shade = torch.randint(0, 256, (1, 1, 1, 3), generator=generator)
            frames = (shade + torch.randint(0, 64, (9, 32, 48, 3), generator=generator)).clamp(max=255)
            write_video(videos / f"{number}.mkv", frames.to(torch.uint8), codec="ffv1", pix_fmt="bgr0")
        for at, name in enumerate(test_set.lists):
            chosen = range(6) if len(test_set.lists) == 1 else range(at, at + 4)
            (lists / name).write_text("".join(f"{number}.mkv {number % 3}\n" for number in chosen))
        for name in test_set.labels:
            (lists / name).write_text("id,name\n" + "".join(f"{at},{each}\n" for at, each in enumerate(CLASSES)))
    torch.save(checkpoint(clip_state, released_head), root / "released.pt")
    return root


def reproduce(capsys: Captured, *arguments: object) -> tuple[int, str, list[str]]:
    status = main(["reproduce", "--device", "cpu", "--workers", "0", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, [line for line in captured.err.splitlines() if line.startswith("mote-fast: error: ")]


def result_of(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name / "result.json").read_text())


def top1(entry: dict[str, Any]) -> float:
    found = entry["running"]["readable"]["top1"]
    return found["mean"] if isinstance(found, dict) else found


@pytest.mark.heavy
def test_all_tables(capsys: Captured, data: Path, clip_file: Path, tmp_path: Path) -> None:
    """Every figure is that of an evaluation by the row's views, or combined from them; a rerun evaluates nothing."""
    released = (data / "released.pt", clip_file)
    command = (1, 3, 4, "--root", data, "--output", tmp_path, "--json", "--b16", *released, "--l14", *released)
    status, out, errors = reproduce(capsys, *command)
    assert (status, errors) == (0, [])
    document = json.loads(out)
    assert len(document["results"]) == 9
    found = {(each["table"], each["row"], each["data_set"]): each for each in document["figures"]}
    b16, l14 = "mote-b16-k400", "mote-l14-k400"
    assert found["4", "ViT-B/16, 1x1", "K400"]["ours"] == top1(result_of(tmp_path, f"{b16}_k400_1x1")["mean"])
    k400 = top1(result_of(tmp_path, f"{l14}_k400_4x3")["mean"])
    zero_shot = [top1(result_of(tmp_path, f"{l14}_{name}_3x1")["mean"]) for name in ("ucf101", "hmdb51", "k600")]
    assert [found["3", "ViT-L/14", name]["ours"] for name in ("UCF-101", "HMDB-51", "K600")] == zero_shot
    assert found["4", "ViT-L/14, 4x3", "HM_ZS"]["ours"] == pytest.approx(harmonic_mean(zero_shot))
    expected = harmonic_mean([k400, harmonic_mean(zero_shot)])
    assert found["4", "ViT-L/14, 4x3", "trade-off"]["ours"] == pytest.approx(expected)
    first = top1(result_of(tmp_path, f"{l14}_k600_3x1")["splits"][0])
    assert found["1", "modulation", "K600 split 1"]["ours"] == first
    for each in document["figures"]:
        assert each["difference"] == pytest.approx(each["ours"] - each["paper"])
    with (tmp_path / "reproduce.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(found)
    assert (tmp_path / "reproduce.png").read_bytes().startswith(b"\x89PNG")
    assert "| 4 | ViT-L/14, 4x3 | trade-off | 80.1 |" in (tmp_path / "reproduce.md").read_text()

    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    assert json.loads(reproduce(capsys, *command)[1])["figures"] == document["figures"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")} == times


@pytest.mark.heavy
def test_what_is_missing_is_named_and_the_rest_evaluated(
    capsys: Captured, data: Path, clip_file: Path, tmp_path: Path
) -> None:
    """Data sets and checkpoints that are not there leave their figures open; the status is 2."""
    root = tmp_path / "data"
    for kind in ("lists", "videos"):
        (root / kind).mkdir(parents=True)
        (root / kind / "ucf101").symlink_to(data / kind / "ucf101")
    (root / "videos" / "hmdb51").mkdir()
    command = ("3", "--root", root, "--output", tmp_path / "out", "--b16", data / "released.pt", clip_file)
    status, out, errors = reproduce(capsys, *command)
    assert status == 2
    assert len(errors) == 4
    lists = root / "lists" / "hmdb51"
    assert any(f"{lists} lacks vallist_split1.txt" in line and "mote-fast prepare hmdb51" in line for line in errors)
    assert any("K600: there is no folder" in line and "https://" in line for line in errors)
    assert any("mote-fast download mote-l14-k400" in line and "MoTE_L14.pt" in line for line in errors)
    ours = [line for line in out.splitlines() if "ViT-B/16, UCF-101" in line]
    assert len(ours[0].split()) > len(next(line for line in out.splitlines() if "ViT-B/16, K600" in line).split())
    document = json.loads((tmp_path / "out" / "reproduce.json").read_text())
    assert sum(each["ours"] is not None for each in document["figures"]) == 1
    assert len(document["missing"]) == 4


@pytest.mark.heavy
def test_a_bad_video_is_counted(capsys: Captured, data: Path, clip_file: Path, tmp_path: Path) -> None:
    """As in ``eval``: the others are evaluated, and the status is 2."""
    root = tmp_path / "data"
    for kind in ("lists", "videos"):
        (root / kind).mkdir(parents=True)
        (root / kind / "ucf101").mkdir()
        for path in (data / kind / "ucf101").iterdir():
            (root / kind / "ucf101" / path.name).write_bytes(path.read_bytes())
    (root / "videos" / "ucf101" / "0.mkv").write_bytes(b"not a video")
    released = ("--b16", data / "released.pt", clip_file, "--l14", tmp_path / "none.pt")
    status, _, errors = reproduce(capsys, "3", "--root", root, "--output", tmp_path / "out", *released)
    assert status == 2
    assert any("1 videos could not be read" in line for line in errors)
    assert any("--l14" in line and "no such file" in line for line in errors)


def test_a_result_of_another_evaluation_is_refused(capsys: Captured, data: Path, tmp_path: Path) -> None:
    """A record is not taken for what it is not, nor overwritten."""
    folder = tmp_path / "mote-b16-k400_ucf101_3x1"
    folder.mkdir()
    command = ("3", "--root", data, "--output", tmp_path, "--b16", data / "released.pt")
    for content, message in (
        ("{", "not a result"),
        ('{"protocol": "zeroshot", "dataset": "UCF-101", "mean": {}}', "splits"),
        ('{"protocol": "zeroshot", "dataset": "UCF-101", "mean": {}, "splits": [{}]}', "failures"),
        ('{"protocol": "closeset", "dataset": "x", "mean": {}, "splits": [{}], "failures": []}', "protocol is"),
    ):
        (folder / "result.json").write_text(content)
        status, out, errors = reproduce(capsys, *command)
        assert (status, out) == (2, "")
        assert str(folder / "result.json") in errors[0]
        assert message in errors[0]
        assert (folder / "result.json").read_text() == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["5"], "choose from 1, 3, 4"),
        (["3", "--b16", "a", "b", "c"], "--b16"),
        (["3", "--output", "FILE"], "--output"),
    ],
)
def test_failures_are_one_clear_line(
    capsys: Captured, data: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """The status is 2 before anything is read."""
    given = [str(data / "released.pt") if each == "FILE" else each for each in arguments]
    output = [] if "--output" in given else ["--output", str(tmp_path / "out")]
    status, out, errors = reproduce(capsys, *given, "--root", tmp_path, *output)
    assert (status, out, len(errors)) == (2, "", 1)
    assert message in errors[0]


@pytest.mark.slow
def test_under_torchrun(capsys: Captured, data: Path, clip_file: Path, tmp_path: Path) -> None:
    """Two processes, the first one writing, give the figures of one."""
    command = ["3", "--root", str(data), "--b16", str(data / "released.pt"), str(clip_file)]
    command += ["--l14", str(data / "released.pt"), str(clip_file), "--json"]
    alone = json.loads(reproduce(capsys, *command, "--output", tmp_path / "alone")[1])
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launched += ["-m", "mote_fast.cli", "reproduce", *command, "--output", str(tmp_path / "out")]
    launched += ["--device", "cpu", "--workers", "0"]
    finished = subprocess.run(launched, capture_output=True, text=True, check=False, timeout=600)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["figures"] == alone["figures"]
