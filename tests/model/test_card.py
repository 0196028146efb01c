"""Model cards: filled from the configuration and from results, safe for any name, and without placeholders."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

import mote_fast
from mote_fast.errors import ConfigError
from mote_fast.model.card import model_card
from mote_fast.model.model_config import ModelConfig
from mote_fast.runtime.text import visible


def result(**changes: Any) -> dict[str, Any]:
    """A document of eval over two splits."""
    spread = {"top1": {"mean": 71.257, "deviation": 0.5}, "top5": {"mean": 90.0, "deviation": 0.25}}
    split = {"name": "one", "classes": 51, "videos": 100, "failed": 1}
    mean = {"full_class": {"readable": spread}, "running": {"readable": spread}}
    facts = {"protocol": "zeroshot", "dataset": "HMDB-51", "views": "3x1", "splits": [split, split], "mean": mean}
    return facts | changes


@pytest.fixture
def config(tiny: Any) -> ModelConfig:
    tiny.classes = ["arm wrestling", "play *cello* <b>"]
    return tiny.config


def front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("\n---\n")[0])


def test_a_card_states_what_is_known(config: ModelConfig) -> None:
    """Metadata that the hub reads, the program to load it, sizes, classes, results and the licence."""
    card = model_card(config, "org/model", license="apache-2.0", results=[result()])
    data = front_matter(card)
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        "apache-2.0",
        "mote_fast",
        "video-classification",
    )
    assert {"zero-shot", "mote", "clip"} <= set(data["tags"])
    found = data["model-index"][0]["results"][0]
    assert found["dataset"]["name"] == "HMDB-51"
    assert found["metrics"][0]["value"] == 71.26
    for text in ('load("hf-hub:org/model")', "`apache-2.0`", "2 classes", "8 of 64 x 64 pixels", "2 layers, 4 experts"):
        assert text in card
    row = "| zeroshot | HMDB-51 | 51 | 200, 2 of them unreadable | 3x1 | top-1 accuracy (running score) | 71.26 |"
    assert row in card
    assert "0.50, 2 splits" in card
    assert r"arm wrestling, play \*cello\* \<b\>." in card
    assert ModelCard(card).data.to_dict()["library_name"] == "mote_fast"


def test_a_card_states_nothing_else(tiny: Any) -> None:
    """What is not known has no line, and nothing is left to be filled in."""
    card = model_card(tiny.config, "org/model", caution=tiny.caution)
    assert {"license", "base_model", "model-index", "datasets"} & front_matter(card).keys() == set()
    for word in ("## Results", "## Classes"):
        assert word not in card
    assert "None is stated" in card
    assert "random weights" in card
    assert re.search(r"\[More|TODO|\{\w*\}|None \|", card) is None


def test_a_card_names_the_method(tiny: Any) -> None:
    """CLIP with mean pooling is no MoTE, in words and tags; results in int8, or of an interpolated tower, say so."""
    mean = mote_fast.create_model("ViT-test", header="mean", heads=1).config
    card = model_card(mean, "org/model", results=[result(dtype="int8", tuned_share=0.99)])
    assert "mote" not in front_matter(card)["tags"]
    assert "CLIP with the mean over frames" in card
    assert "| 3x1, int8, 0.99 of the tuned image tower |" in card
    assert "mote" in front_matter(model_card(tiny.config, "org/model"))["tags"]


def test_names_cannot_break_a_card(config: ModelConfig) -> None:
    """A data set's or licence's name with marks of YAML and Markdown is a name."""
    name = 'a: "b" | c\n---\n- [x](y)'
    card = model_card(config, "org/model", license=name, results=[result(dataset=name)])
    data = front_matter(card)
    assert data["license"] == visible(name)
    assert data["model-index"][0]["results"][0]["dataset"]["name"] == visible(name)
    (row,) = [line for line in card.splitlines() if line.startswith("| zeroshot") and "top-1" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == 9


@pytest.mark.parametrize("document", [{}, [], {"mean": {}}, result(mean={"running": {}}), result(splits=None)])
def test_results_of_something_else_are_refused(document: Any, config: ModelConfig) -> None:
    """Only documents of eval have what a card shows."""
    with pytest.raises(ConfigError, match=r"result\.json"):
        model_card(config, "org/model", results=[document])
