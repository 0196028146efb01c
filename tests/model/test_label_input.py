"""Labels in every form that people have."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from mote_fast import VideoClassifier
from mote_fast.errors import ConfigError, LabelError

LABELS = ["archery", "juggling balls", "playing the cello"]
VIDEO = torch.zeros(8, 32, 32, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    "make",
    [tuple, np.array, lambda labels: np.array(labels, dtype=object), iter, lambda labels: dict.fromkeys(labels).keys()],
)
def test_forms(tiny: VideoClassifier, make: Any) -> None:
    """Each gives the answer of a list, with plain strings."""
    expected = tiny.classify(VIDEO, LABELS)
    found = tiny.classify(VIDEO, make(LABELS))
    assert found == expected
    assert {type(each.label) for each in found} == {str}
    assert json.dumps([vars(each) for each in found])
    assert torch.equal(tiny.class_features(make(LABELS)), tiny.class_features(LABELS))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "records no class names"),
        ("archery", "not one str"),
        (b"archery", "not one bytes"),
        (7, "not one int"),
        ([], "no labels"),
        (iter([]), "no labels"),
        (np.array([]), "no labels"),
        (np.array("archery"), "list of class names"),
        (np.array([["a", "b"]]), "expected a string"),
        ({"a": "archery"}, "dictionary: give list"),
        ({"a", "b"}, "no order: give sorted"),
        (["a", 7], "expected a string"),
        (["a", None], "expected a string"),
        (["a", " "], "blank"),
    ],
)
def test_what_is_no_label_set(tiny: VideoClassifier, labels: Any, message: str) -> None:
    """A typed error, before a video is read."""
    for call in (tiny.classify, tiny.stream_results):
        with pytest.raises(LabelError, match=message):
            call(["no such file.mp4"], labels)


@pytest.mark.parametrize("topk", [0, -1, 2.5, True, "3"])
def test_topk_out_of_range(tiny: VideoClassifier, topk: Any) -> None:
    """It is an integer from 1, or None."""
    with pytest.raises(ConfigError, match="topk"):
        tiny.classify("no such file.mp4", LABELS, topk=topk)


def test_topk_beyond_the_labels(tiny: VideoClassifier) -> None:
    """All labels, as None gives them; NumPy's integers are integers."""
    assert tiny.classify(VIDEO, LABELS, topk=100) == tiny.classify(VIDEO, LABELS, topk=None)
    assert len(tiny.classify(VIDEO, [str(number) for number in range(9)], topk=None)) == 9
    assert len(tiny.classify(VIDEO, LABELS, topk=np.int64(2))) == 2  # pyright: ignore[reportCallIssue]
