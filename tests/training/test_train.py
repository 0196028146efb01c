"""train.py from the command line: exit codes, one-line errors, and learning from real files with torchrun."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

import mote_fast
from tests.training.conftest import COLOURS, ROOT, Launched, VideoFolder, metrics_of, moving_square, write_data_set


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The program's exit code, in this process."""
    spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    return program.main()


@pytest.mark.parametrize("override", ["optim.learning_rate=1", "optim.lr=fast", "data.train_list=/no/such/list"])
def test_bad_settings_give_one_line_and_exit_code_2(
    override: str, videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """An unknown key, a wrong type and a missing list end the program before anything is built, with the key."""
    assert main(monkeypatch, "--config", str(videos.write_config(tmp_path / "run")), override) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.py: ")
    assert override.split("=")[0] in line


@pytest.mark.heavy
def test_a_list_without_a_readable_video_gives_one_line_and_exit_code_2(
    videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As with a wrong data root: the line names a video, why it cannot be read, and what to do."""
    lines = (videos.folder / "train.txt").read_text().replace(str(videos.folder), str(tmp_path / "moved"))
    (tmp_path / "list.txt").write_text(lines)
    config = videos.write_config(tmp_path / "run", data__train_list=str(tmp_path / "list.txt"))
    assert main(monkeypatch, "--config", str(config)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be read" in line
    assert "check the data root" in line


def test_a_complete_run_exits_with_0(videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line's settings override the file's."""
    config = videos.write_config(tmp_path / "run")
    assert main(monkeypatch, "--config", str(config), "run.max_steps=1", f"run.output={tmp_path / 'other'}") == 0
    assert len(metrics_of(tmp_path / "other")) == 1


def test_arguments_of_the_official_script(
    videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """What its launch scripts write starts a run, in the folder that they name."""
    config = str(videos.write_config(tmp_path / "run"))
    launched = ("--local-rank=0", "-cfg", config, "--log_time", "now", "--precision", "fp32", "--dist_url", "env://")
    assert main(monkeypatch, *launched, "run.max_steps=1") == 0
    assert len(metrics_of(tmp_path / "run" / "now")) == 1
    assert main(monkeypatch, "-cfg", config, "--precision", "fp16") == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("train.py: --precision fp16: ")


def test_an_evaluation_file_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A file of the official test scripts has no videos to train on."""
    path = tmp_path / "ucf_split1.yaml"
    path.write_text("data: {val_list: a.txt}\nnetwork: {temporal_layer: 6, num_experts: 4}\n")
    assert main(monkeypatch, "--config", str(path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: an evaluation file" in line
    assert f"mote-fast eval --config {path}" in line


@pytest.mark.heavy
def test_resume_is_an_option_too(
    videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """``--resume`` is ``run.resume``, anywhere among the settings; a path is used unchanged."""
    config, missing = str(videos.write_config(tmp_path / "run")), str(tmp_path / "a: b")
    assert main(monkeypatch, "run.max_steps=1", "--resume", "auto", "--config", config, "optim.epochs=1") == 0
    assert main(monkeypatch, "--config", config, "--resume", "none") == 2
    assert "run.resume=none" in capsys.readouterr().err
    assert main(monkeypatch, "--config", config, "--resume", missing) == 2
    assert f"run.resume names {missing!r}, which does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_training_end_to_end(tmp_path: Path) -> None:
    """Two processes learn six colours from video files: the loss falls, and validation is far above chance."""
    videos = write_data_set(tmp_path / "videos", train=20, val=5)
    output = tmp_path / "run"
    path = videos.write_config(
        output,
        data__batch_size=5,
        data__workers=1,
        optim__epochs=6,
        optim__warmup_epochs=0.5,
        run__eval_every=2,
        run__tensorboard=True,
    )
    run = Launched(path, 2)
    assert run.end() == 0, run.text
    losses = [record["loss"] for record in metrics_of(output)]
    assert len(losses) == 72
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    best = max(record["top1"] for record in metrics_of(output, "val"))
    assert best > 3 * 100 / len(COLOURS)
    assert (output / "tensorboard").is_dir()

    # The trained model classifies an unseen video.
    model = mote_fast.load(output / "best")
    frames = moving_square(COLOURS["blue"], torch.Generator().manual_seed(99))
    ranked = model.classify(frames, list(COLOURS), views="1x1")
    assert "blue" in [prediction.label for prediction in ranked[:3]]
