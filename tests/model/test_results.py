"""Results as the data that people go on with: dictionaries, JSON, tables."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
import torch

from mote_fast import Prediction, VideoClassifier, VideoResult
from mote_fast.errors import MissingVideoError

LABELS = ["archery", "juggling balls", "playing the cello"]
VIDEO = torch.zeros(8, 32, 32, 3, dtype=torch.uint8)


def test_a_prediction_is_data() -> None:
    """By name and as a dictionary; not iterable, because pandas would take it for a row without names."""
    best = Prediction("archery", 0, 0.5)
    assert best["score"] == best.score == 0.5
    assert dict(best) == best.to_dict() == {"label": "archery", "index": 0, "score": 0.5} == {**best}
    assert not isinstance(best, Iterable)
    assert json.loads(json.dumps(best.to_dict())) == best.to_dict()
    with pytest.raises(KeyError):
        best["probability"]


def test_all_scores(tiny: VideoClassifier) -> None:
    """As a dictionary and as a tensor."""
    every = {each.label: each.score for each in tiny.classify(VIDEO, LABELS, topk=None)}
    scores = tiny.scores(VIDEO, tiny.class_features(LABELS))
    assert [every[label] for label in LABELS] == pytest.approx(scores.tolist())


def test_results_of_streams_as_json(tiny: VideoClassifier) -> None:
    """Errors by class and text, embeddings as lists."""
    good, bad = tiny.stream_results([VIDEO, "none.mp4"], LABELS)
    assert json.loads(json.dumps(good.to_dict()))["predictions"] == [each.to_dict() for each in good.predictions]
    assert bad.to_dict()["kind"] == MissingVideoError.__name__
    assert "none.mp4" in bad.to_dict()["error"]
    (vector,) = tiny.stream_embeddings([VIDEO])
    assert len(json.loads(json.dumps(vector.to_dict()))["embedding"]) == tiny.clip.embed_dim
    assert VideoResult(0, "a", []).to_dict()["error"] is None


def test_predictions_make_a_table(tiny: VideoClassifier) -> None:
    """A list is a DataFrame with the names as columns."""
    pandas = pytest.importorskip("pandas")
    ranked = tiny.classify(VIDEO, LABELS)
    table = pandas.DataFrame(ranked)
    assert list(table.columns) == ["label", "index", "score"]
    assert table["label"].tolist() == [each.label for each in ranked]
    assert tiny.classify(VIDEO, pandas.Series(LABELS)) == ranked
