"""Commands on a model folder that records its class names and prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mote_fast
from mote_fast import Prompts
from mote_fast.cli import main

CLASSES = ["arm wrestling", "cello"]


@pytest.fixture
def folder(tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder holds a trained model."""
    tiny.classes, tiny.prompts = CLASSES, Prompts(["a clip of {}."])
    tiny.save(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine"


def ranked(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    assert main(["classify", *map(str, arguments), "--json", "--no-cache"]) == 0
    return json.loads(capsys.readouterr().out)["videos"][0]["predictions"]


@pytest.mark.parametrize("option", ["--model", "--checkpoint"])
def test_classify_ranks_the_models_own_names(
    option: str, folder: Path, moving_video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without labels; the prompts are those of the training, and templates that are given replace them."""
    found = ranked(capsys, moving_video, option, "mine")
    expected = mote_fast.load(folder).classify(moving_video)
    assert [(each["label"], each["score"]) for each in found] == [(each.label, each.score) for each in expected]
    Path("templates.txt").write_text("look, {}\n")
    other = ranked(capsys, moving_video, option, "mine", "--templates", "templates.txt")
    assert other[0]["score"] != found[0]["score"]


def test_an_architecture_is_no_folder_of_its_name(
    folder: Path, moving_video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--model means the architecture where a folder has the same name; ./NAME is the folder."""
    folder.rename("ViT-test")
    assert main(["classify", str(moving_video), "--model", "ViT-test"]) == 2
    assert "ViT-test records no class names" in capsys.readouterr().err
    assert len(ranked(capsys, moving_video, "--model", "./ViT-test")) == len(CLASSES)


@pytest.mark.parametrize("name", ["mote-b16-k400", "clip:ViT-B-16/openai", "ViT-B-16"])
def test_labels_are_asked_for_before_anything_is_fetched(
    name: str, moving_video: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a model folder records class names."""
    monkeypatch.setattr("mote_fast.cli.inputs.model_of", lambda *_: pytest.fail("a model was fetched"))
    assert main(["classify", str(moving_video), "--model", name]) == 2
    assert "give --labels" in capsys.readouterr().err


def test_a_folder_without_names_asks_for_labels(
    tiny: Any, tmp_path: Path, moving_video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names the folder."""
    tiny.save(tmp_path / "plain")
    assert main(["classify", str(moving_video), "--model", str(tmp_path / "plain")]) == 2
    assert f"{tmp_path / 'plain'} records no class names; give --labels" in capsys.readouterr().err


def test_a_model_that_does_not_exist_is_named(moving_video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt path is not said to lack class names."""
    for option in ("--model", "--checkpoint"):
        assert main(["classify", str(moving_video), option, "runs/nosuch"]) == 2
        error = capsys.readouterr().err
        assert "runs/nosuch" in error
        assert "records no" not in error
