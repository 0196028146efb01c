"""Which checkpoint a run continues, and what a finished run says."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mote_fast.errors import ConfigError
from mote_fast.training.config.sections import DataConfig, OptimConfig, RunConfig
from mote_fast.training.config.train_config import TrainConfig, to_dict
from mote_fast.training.loop import train
from mote_fast.training.resuming import check_unfinished, is_finished
from tests.training.conftest import VideoFolder, metrics_of

CONFIG = TrainConfig(DataConfig("a", "b"), optim=OptimConfig(epochs=3, warmup_epochs=0), run=RunConfig(output="runs/a"))
PATH = Path("runs/a/checkpoints/step-00000009.pt")


def checkpoint(epoch: int, config: TrainConfig = CONFIG) -> dict[str, Any]:
    """The parts that decide, after ``epoch`` epochs of three steps."""
    return {"progress": {"epoch": epoch, "step": 3 * epoch}, "config": to_dict(config)}


def changed(**sections: dict[str, Any]) -> TrainConfig:
    """The configuration with other values."""
    parts = {name: replace(getattr(CONFIG, name), **values) for name, values in sections.items()}
    return replace(CONFIG, **parts)


@pytest.mark.parametrize(
    "other",
    [
        changed(optim={"lr": 1e-5}),
        changed(optim={"epochs": 2}),
        changed(optim={"epochs": 5, "lr": 1e-5}),
        changed(optim={"lr": 1e-5}, run={"resume": str(PATH)}),
        changed(run={"seed": 7}),
        changed(data={"augmentation": "none"}),
    ],
)
def test_another_experiment_does_not_pass_for_a_finished_run(other: TrainConfig) -> None:
    """It would take no step and report the other run's model."""
    with pytest.raises(ConfigError, match=r"runs/a: .*finished run of 9 steps.*; give another run\.output, .*resume="):
        check_unfinished(checkpoint(3), other, PATH)


@pytest.mark.parametrize(
    "other",
    [
        CONFIG,
        changed(optim={"epochs": 5}),
        changed(optim={"epochs": 5, "lr": 1e-5}, run={"resume": str(PATH)}),
        changed(data={"workers": 1, "train_root": "elsewhere"}, run={"log_every": 1, "device": "cpu"}),
    ],
)
def test_a_finished_run_is_repeated_or_made_longer(other: TrainConfig) -> None:
    """The same command again, on another machine too, and more epochs; other settings beside them by name alone."""
    check_unfinished(checkpoint(3), other, PATH)


def test_an_unfinished_run_takes_other_settings() -> None:
    """A lower rate is what a diverging run is told to resume with."""
    check_unfinished(checkpoint(2), changed(optim={"lr": 1e-5}), PATH)


def test_the_first_differing_settings_are_shown() -> None:
    """All of them would fill the screen."""
    other = changed(data={"augmentation": "none", "dense": True}, optim={"lr": 1.0, "eps": 1.0}, run={"seed": 1})
    with pytest.raises(ConfigError) as raised:
        check_unfinished(checkpoint(3), other, PATH)
    assert "(data.augmentation: 'kinetics' -> 'none', data.dense: False -> True, optim.lr: " in str(raised.value)
    assert "and 2 more)" in str(raised.value)


@pytest.mark.parametrize("settings", [{}, {"optim": {"epochs": "3"}}, {"optim": {}, "run": {"max_steps": None}}])
def test_settings_without_an_end(settings: dict[str, Any]) -> None:
    """Those of a checkpoint that another program wrote."""
    assert not is_finished({"epoch": 9, "step": 9}, settings)


@pytest.mark.heavy
def test_a_run_after_a_finished_one(videos: VideoFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another rate is refused before the first step; the same command says that nothing is left."""
    caplog.set_level(logging.INFO)
    output = tmp_path / "run"
    train(videos.config(output, optim__epochs=1))
    with pytest.raises(ConfigError, match=r"optim\.lr: 0\.002 -> 0\.5\)"):
        train(videos.config(output, optim__epochs=1, optim__lr=0.5))
    assert "finished before" not in caplog.text
    assert train(videos.config(output, optim__epochs=1))
    assert "finished before, nothing was left to train: 4 steps" in caplog.text
    assert len(metrics_of(output)) == 4
