"""The arguments of the official training script: each is understood, or named as without effect."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace

import pytest

from mote_fast.errors import ConfigError
from mote_fast.training.config import released_arguments
from mote_fast.training.config.sections import RunConfig
from mote_fast.training.config.train_config import TrainConfig


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    released_arguments.add_arguments(parser)
    return parser.parse_args(arguments)


def test_precision() -> None:
    """Mixed precision of the official script is float16 with a loss scaler."""
    assert released_arguments.overrides_of(parsed()) == []
    assert released_arguments.overrides_of(parsed("--precision", "amp")) == ["optim.precision=fp16"]
    assert released_arguments.overrides_of(parsed("--precision", "fp32")) == ["optim.precision=fp32"]
    with pytest.raises(ConfigError, match="--precision fp16"):
        released_arguments.overrides_of(parsed("--precision", "fp16"))


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        (["--dist_url", "env://"], "--dist_url"),
        (["--world_size", "3"], "--world_size"),
        (["--local_rank", "0"], "--local_rank"),
        (["--local-rank=0"], "--local_rank"),
    ],
)
def test_what_the_launcher_says_has_no_effect(argument: list[str], name: str, caplog: pytest.LogCaptureFixture) -> None:
    """One warning names the arguments; an empty command line has none."""
    with caplog.at_level(logging.WARNING):
        assert released_arguments.overrides_of(parsed()) == []
        assert caplog.text == ""
        assert released_arguments.overrides_of(parsed(*argument)) == []
    assert name in caplog.text


def test_log_time_names_the_folder() -> None:
    """As in the official script, a run has a folder of its own inside that of its data set and architecture."""
    config = replace(TrainConfig(), run=RunConfig(output="exps/k400/ViT-L-14"))
    assert released_arguments.with_log_time(config, parsed()) == config
    named = released_arguments.with_log_time(config, parsed("--log_time", "20260101_120000"))
    assert named.run.output == "exps/k400/ViT-L-14/20260101_120000"
    assert replace(named, run=config.run) == config
