"""What few videos mean for a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import pytest

from mote_fast.training import small_data
from mote_fast.training.build import Loaders
from mote_fast.training.config.sections import DataConfig, OptimConfig, RunConfig
from mote_fast.training.config.train_config import TrainConfig
from mote_fast.training.loop import train
from mote_fast.training.small_data import cautions, interval
from mote_fast.training.validation import Validation
from tests.training.conftest import VideoFolder


class Loader:
    """A loader of so many batches."""

    def __init__(self, batches: int) -> None:
        self.batches_per_epoch = batches


def said(batches: int, validation: int, **run: Any) -> list[str]:
    config = TrainConfig(
        DataConfig("train.txt", "labels.txt", "val.txt"), optim=OptimConfig(accumulation=2), run=RunConfig(**run)
    )
    loader = cast("Any", Loader(batches))
    return list(cautions(config, Loaders(loader, loader if validation else None, 100, validation, 0, "")))


def test_the_interval_is_wilsons() -> None:
    """Newcombe 1998, Table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for hits, videos, low, high in (
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0, 16.11),
        (1, 29, 0.61, 17.18),
    ):
        assert interval(hits, videos) == pytest.approx((low, high), abs=0.006)


def test_few_validation_videos_are_said() -> None:
    """With what they leave open, unless nothing validates."""
    (line,) = said(30, 6)
    assert line.startswith(
        "val.txt: 6 videos tell little: if 4 of them are right, the model's top-1 lies between 30% and 90%"
    )
    assert not said(30, small_data.FEW_VIDEOS)
    assert not said(30, 0)
    assert not said(30, 6, eval_every=0)


def test_one_step_an_epoch_is_said() -> None:
    """30 epochs are then 30 steps."""
    (line,) = said(2, 0)
    assert line.startswith(
        "train.txt: 100 videos make one step an epoch, 30 in all (data.batch_size 64 x optim.accumul"
    )
    assert not said(3, 0)


def test_five_classes_have_no_best_five() -> None:
    """It is always 100%."""
    percentages = {"top1": 50.0, "top5": 100.0}
    assert Validation(percentages, 4, 0, 5).line() == "top-1 50.00% of 4 videos (0 unreadable)"
    assert "top-5 100.00%" in Validation(percentages, 4, 0, 6).line()


@pytest.mark.heavy
def test_a_run_says_it(videos: VideoFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both lines before the first step."""
    caplog.set_level(logging.INFO)
    train(videos.config(tmp_path / "run", run__eval_every=1, optim__accumulation=4, run__max_steps=1))
    assert caplog.text.index("12 videos tell little") < caplog.text.index("step 1/1")
    assert "24 videos make one step an epoch, 2 in all" in caplog.text
