"""`mote-fast train` and `mote-fast configs`; tests/training/test_train.py has the program train.py."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mote_fast.cli import main
from mote_fast.runtime.environment import PRESETS

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The command sets up logging anew; the tests' own handlers come back."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    yield
    root.handlers[:] = kept
    root.setLevel(level)


@pytest.mark.heavy
def test_from_a_folder_of_videos_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """The command that `prepare folder` prints runs, with settings on both sides of an option, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    video = next(PRESETS.glob("demo/*/*.mp4"))
    for name in ("train/a/1.mp4", "train/b/1.mp4", "val/a/2.mp4"):
        path = tmp_path / "my videos" / name
        path.parent.mkdir(parents=True)
        shutil.copyfile(video, path)
    assert main(["prepare", "folder", "--root", "my videos", "--output", "lists"]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:4] == ["mote-fast", "train", "--config", "folder"]
    settings = [*words[4:], "run.max_steps=1", "data.batch_size=2"]
    assert main(["train", *settings, "--config", "smoke", "run.tensorboard=false"]) == 0
    assert (tmp_path / "runs" / "lists" / "model" / "config.json").is_file()


def test_without_a_validation_list_none_is_named(tmp_path: Path, capsys: Captured) -> None:
    """The command would end at the missing file."""
    path = tmp_path / "videos" / "a" / "1.mp4"
    path.parent.mkdir(parents=True)
    shutil.copyfile(next(PRESETS.glob("demo/*/*.mp4")), path)
    assert main(["prepare", "folder", "--root", str(tmp_path / "videos"), "--output", str(tmp_path / "lists")]) == 0
    assert "val_list" not in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "smok"], "did you mean 'smoke'"),
        (["--config", "smoke", "optim.learning_rate=1"], "unknown key"),
        (["--config", "none.yaml"], "none.yaml: no such configuration file"),
    ],
)
def test_bad_settings_give_one_line_and_status_2(arguments: list[str], message: str, capsys: Captured) -> None:
    """As every other command."""
    assert main(["train", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mote-fast: error: ")
    assert message in line


@pytest.mark.parametrize("arguments", [["--config", "smoke", "a=1", "--nosuch"], ["a=1"]])
def test_unknown_options_are_refused(arguments: list[str], capsys: Captured) -> None:
    """Settings after an option are accepted; an option that does not exist is not one."""
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments])
    assert ended.value.code == 2
    capsys.readouterr()


def test_configs(capsys: Captured) -> None:
    """Names for people and programs, and the text of one."""
    assert main(["configs"]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert main(["configs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == listed
    assert listed["table1/mse"].startswith("Table 1")
    assert main(["configs", "smoke"]) == 0
    assert "base: folder.yaml" in capsys.readouterr().out
    assert main(["configs", "smok"]) == 2
