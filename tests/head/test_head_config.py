"""The configuration of a head: one value per head, checked at construction."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from mote_fast import HeadConfig, VideoHead
from mote_fast.errors import ConfigError
from mote_fast.head.head_config import HeadOptions
from mote_fast.training.config.train_config import ModelSection


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        (HeadConfig(16, 2, 3, 0), HeadConfig(16, 2, 3, 4, header="plain")),
        (HeadConfig(16, 2, 3, 4, header="mean"), HeadConfig(16, 2, 0, 0, header="mean")),
    ],
)
def test_one_head_has_one_configuration(asked: HeadConfig, same: HeadConfig) -> None:
    """Without experts the head is plain, and mean pooling has neither layers nor experts, whatever the arguments."""
    assert asked == same
    assert VideoHead(asked).config == same


def test_a_refused_change_changes_nothing() -> None:
    """The head keeps its whole configuration, even if only one of several values is out of range."""
    head = VideoHead(HeadConfig(16, 2, 1, 2))
    before = head.config
    with pytest.raises(ConfigError, match="modulation_gamma"):
        head.set_inference(aggregation="ensemble", modulation_gamma=0.0)
    assert head.config is before
    head.set_inference(aggregation="ensemble")
    assert head.config == replace(before, aggregation="ensemble")


def test_training_has_the_options_of_the_head() -> None:
    """A configuration file names every option of the head, with the head's own defaults and checks."""
    options, section = HeadOptions(), ModelSection()
    for each in fields(HeadOptions):
        assert getattr(section, each.name) == getattr(options, each.name)
    with pytest.raises(ConfigError, match="modulation_top_k must be at least 1, got 0"):
        ModelSection(modulation_top_k=0)
    with pytest.raises(ConfigError, match="layers must be at least 1, got 0"):
        ModelSection(layers=0)
