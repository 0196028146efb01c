"""A trained model knows its class names and prompts, and what is taken for a model says what to load instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mote_fast
from mote_fast import Prompts
from mote_fast.clip.prompts import PAPER_PROMPTS
from mote_fast.errors import CheckpointError, LabelError
from mote_fast.model.model_config import ModelConfig
from mote_fast.runtime.weights import CONFIG_FILE, MAX_CONFIG

CLASSES = ["arm wrestling", "cello"]
PROMPTS = Prompts(["a clip of {}."], {"cello": ["a large violin", "an orchestra"]}, 0.25)


@pytest.fixture
def trained(tmp_path: Path, tiny: Any) -> Path:
    """The folder of a model that records classes and prompts."""
    tiny.classes, tiny.prompts = CLASSES, PROMPTS
    tiny.save(tmp_path / "best")
    return tmp_path / "best"


def test_names_and_prompts_are_kept(trained: Path, moving_video: Path, tmp_path: Path) -> None:
    """Saved, loaded, folded and saved again; classify ranks them where it is given none."""
    model = mote_fast.load(trained).fold()
    assert (model.classes, model.prompts) == (tuple(CLASSES), PROMPTS)
    assert model.classify(moving_video) == model.classify(moving_video, CLASSES)
    assert [each.index for each in model.classify(moving_video, ["cello"])] == [0]
    model.save(tmp_path / "again")
    assert mote_fast.load(tmp_path / "again").config == model.config


def test_a_model_without_names_asks_for_labels(tiny: Any, moving_video: Path, tmp_path: Path) -> None:
    """Fresh models and folders of earlier formats record none; their prompts are the paper's."""
    with pytest.raises(LabelError, match="records no class names"):
        tiny.classify(moving_video)
    tiny.save(tmp_path / "old")
    config = json.loads((tmp_path / "old" / CONFIG_FILE).read_text())
    assert (config.pop("classes"), config.pop("prompts")) == (None, None)
    (tmp_path / "old" / CONFIG_FILE).write_text(json.dumps(config | {"format_version": 4}))
    back = mote_fast.load(tmp_path / "old")
    assert (back.classes, back.prompts) == (None, PAPER_PROMPTS)


def test_descriptions_of_the_training_leave_other_classes_alone(trained: Path) -> None:
    """Classes that the training did not have get its templates; a list that shares a name gets descriptions."""
    model = mote_fast.load(trained)
    others = ["archery", "juggling"]
    assert model.prompts_for(others) == Prompts(["a clip of {}."], weight=0.25)
    assert model.class_features(others).shape == (2, 64)
    assert model.prompts_for(["cello", "archery"]) == PROMPTS
    model.classes = None
    with pytest.raises(LabelError, match="none of the 2 classes"):
        model.class_features(others)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": []},
        {"classes": "cello"},
        {"classes": {"cello": 1}},
        {"classes": ["cello", 3]},
        {"classes": ["cello", " "]},
        {"prompts": []},
        {"prompts": {"templates": "a {}"}},
        {"prompts": {"templates": ["no place"]}},
        {"prompts": {"descriptions": ["cello"]}},
        {"prompts": {"weight": "much"}},
        {"prompts": {"surprise": 1}},
    ],
)
def test_malformed_names_are_refused(changes: dict[str, Any], tiny: Any) -> None:
    """A stranger's folder can hold anything in their place; the error names the folder."""
    with pytest.raises(CheckpointError, match="folder"):
        ModelConfig.from_json(tiny.config.to_json() | changes, "folder")


def test_names_that_could_not_be_read_back_are_not_written(tiny: Any, tmp_path: Path) -> None:
    """The limit of a configuration holds for the writer too, before anything is replaced."""
    tiny.classes = ["a name " * 100] * (MAX_CONFIG // 600)
    with pytest.raises(CheckpointError, match="shorten"):
        tiny.save(tmp_path / "large")
    assert not (tmp_path / "large").exists()


def test_the_folder_of_a_run_names_its_models(trained: Path) -> None:
    """The user loads runs/mine; the models are inside it."""
    with pytest.raises(CheckpointError, match=f"load {trained}"):
        mote_fast.load(trained.parent)


def test_checkpoints_of_a_run_name_its_models(trained: Path, tmp_path: Path) -> None:
    """What training continues from holds no configuration of a model."""
    path = tmp_path / "checkpoints" / "step-00000030.pt"
    path.parent.mkdir()
    torch.save({"progress": {"step": 30}, "optimizer": {}, "model": {}}, path)
    with pytest.raises(CheckpointError, match=f"continues from.*{trained}"):
        mote_fast.load(path)


def test_state_dicts_say_what_they_lack(tiny: Any, tmp_path: Path) -> None:
    """torch.save(clf.state_dict()) has no architecture."""
    torch.save(tiny.state_dict(), tmp_path / "mine.pt")
    with pytest.raises(CheckpointError, match=r"clf\.save"):
        mote_fast.load(tmp_path / "mine.pt")


def test_home_folders_are_found(trained: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path below ~ reads and writes in the home folder; a folder that is called ~ comes first."""
    home = trained.parent
    monkeypatch.setenv("HOME", str(home))
    assert mote_fast.load("~/best").classes == tuple(CLASSES)
    assert mote_fast.load(Path("~") / "best").classes == tuple(CLASSES)
    tiny.classes = ["other"]
    tiny.save("~/mine")
    assert (home / "mine" / CONFIG_FILE).is_file()
    (home / "~").mkdir()
    monkeypatch.chdir(home)
    (home / "mine").rename(home / "~" / "best")
    assert mote_fast.load("~/best").classes == ("other",)
