"""The protocols: one pass for all splits gives what a pass for each would."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mote_fast.data.items import VideoItem
from mote_fast.errors import ConfigError
from mote_fast.evaluation import evaluate as evaluate_module
from mote_fast.evaluation.evaluate import check_protocol, evaluate
from mote_fast.evaluation.predict import Predictions, predict
from mote_fast.evaluation.protocol_names import FULL_CLASS, RUNNING
from mote_fast.evaluation.splits import Split, mix_splits, pool_splits
from mote_fast.head.scores import pool_views
from tests.conftest import GOLDEN
from tests.evaluation.made_up import MadeUpLoader, failure_of, made_up_pixels, random_classes, small_model
from tests.tolerances import assert_close


def split_of(name: str, videos: list[int], classes: int = 4, prefix: str = "class") -> Split:
    items = [VideoItem(f"video{video}.mp4", video % classes) for video in videos]
    return Split(name, items, [f"{prefix}{number}" for number in range(classes)])


def test_splits_share_one_pass() -> None:
    """Overlapping splits, two of one label set and one of its own: each as if evaluated alone, each video read once."""
    model, pixels = small_model(), made_up_pixels(8)
    splits = [split_of("a", [5, 0, 1, 2]), split_of("b", [2, 3, 4, 2]), split_of("c", [6, 2, 5, 7], 3, "other")]
    pool = pool_splits(splits)
    order = [int(item.path.removeprefix("video").removesuffix(".mp4")) for item in pool.items]
    class_features = [random_classes(model, len(names), seed=len(names)) for names in pool.class_names]
    # Video 3 of the made-up ones cannot be read; only list b has it.
    loader = MadeUpLoader(pixels[order], 3, broken={order.index(3)})
    found = evaluate(model, loader, pool, splits, class_features, "zeroshot")
    assert sorted(loader.yielded) == [at for at in range(8) if at != order.index(3)]
    assert [failure.index for failure in found.failures] == [order.index(3)]
    assert [score.name for score in found.scores] == ["a", "b", "c"]
    for split, result, member in zip(splits, found.lists, pool.memberships, strict=True):
        videos = [int(item.path.removeprefix("video").removesuffix(".mp4")) for item in split.items]
        labels = torch.tensor([item.label for item in split.items])
        broken = {place for place, video in enumerate(videos) if video == 3}
        alone = predict(
            model, MadeUpLoader(pixels[videos], broken=broken, labels=labels), class_features[member.label_set]
        )
        read = result.rows >= 0
        assert (~read).nonzero().flatten().tolist() == sorted(broken)
        assert_close(result.predictions.running[result.rows[read]], alone.running, "equivalent")
        assert (
            result.ranked[RUNNING].best[read].tolist()
            == alone.running.topk(len(split.class_names[:5])).indices.tolist()
        )
        assert result.ranked[FULL_CLASS].labels.tolist() == labels.tolist()


def test_released_half_classes(golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy on each of the ten halves is the official one for the golden features, unreadable videos apart."""
    tensors = load_file(GOLDEN / "protocol.safetensors")
    features, labels = pool_views(tensors["half.video"]), tensors["half.labels"]
    classes = torch.nn.functional.normalize(tensors["half.text"].float(), dim=-1)
    names = [str(number) for number in range(len(classes))]
    # One more video, listed first, that cannot be read.
    items = [VideoItem("video0.mp4", 0), *(VideoItem(f"{at}.mp4", int(label)) for at, label in enumerate(labels))]
    running = torch.zeros(len(labels), len(classes), dtype=torch.float64)
    indices = torch.arange(len(labels)) + 1
    predictions = Predictions(indices, labels, running, features, classes, (failure_of(0),))
    monkeypatch.setattr(evaluate_module, "predict_label_sets", lambda *_, **__: [predictions])
    split = Split("half", items, names)
    loader = MadeUpLoader(made_up_pixels(1))
    found = evaluate(small_model(), loader, pool_splits([split]), [split], [classes], "halfclass")
    assert found.lists[0].ranked[FULL_CLASS].accuracy == pytest.approx(golden["half_class"]["full"], abs=1e-4)
    assert len(found.scores) == 10
    for score, (half, *percent) in zip(found.scores, golden["half_class"]["splits"], strict=True):
        ranked = score.ranked[FULL_CLASS]
        assert score.classes == len(half)
        assert ranked.accuracy == pytest.approx(percent, abs=1e-4)
        assert len(ranked.labels) == int(torch.isin(labels, torch.tensor(half)).sum()) + (0 in half)
        assert int((~ranked.read).sum()) == (0 in half)


def test_a_loader_that_loses_videos_is_refused() -> None:
    """A video without a prediction or a failure would shift every count: the error names it."""
    model, split = small_model(), split_of("a", [0, 1, 2])
    pool = pool_splits([split])
    with pytest.raises(ConfigError, match="video 2"):
        evaluate(model, MadeUpLoader(made_up_pixels(2)), pool, [split], [random_classes(model, 4)], "closeset")


def test_mixed_lists_have_the_classes_of_all() -> None:
    """Each list is judged among its own classes and among all; the videos are read once."""
    model = small_model()
    own = [split_of("a", [0, 1, 2]), split_of("b", [3, 4], 2, "other")]
    splits = [*own, *mix_splits(own)]
    pool = pool_splits(splits)
    assert pool.class_names == [
        *(tuple(split.class_names) for split in own),
        ("class0", "class1", "class2", "class3", "other0", "other1"),
    ]
    classes = [random_classes(model, len(names), seed=len(names)) for names in pool.class_names]
    loader = MadeUpLoader(made_up_pixels(5), 3)
    found = evaluate(model, loader, pool, splits, classes, "mixed")
    assert sorted(loader.yielded) == list(range(5))
    assert [result.split.name for result in found.lists] == ["a", "b", "a, mixed", "b, mixed"]
    assert [(score.name, score.classes) for score in found.scores] == [("a, mixed", 6), ("b, mixed", 6)]
    alone = predict(model, MadeUpLoader(made_up_pixels(5)), classes[2])
    best = alone.running.argmax(-1)
    assert found.scores[1].ranked[RUNNING].best[:, 0].tolist() == best[3:].tolist()
    assert found.scores[1].ranked[RUNNING].labels.tolist() == [5, 4]


@pytest.mark.parametrize(
    ("protocol", "splits", "message"),
    [
        ("halfclass", [split_of("a", [0]), split_of("b", [1])], "one list"),
        ("halfclass", [split_of("a", [0], classes=3)], "half of 3"),
        ("zeroshot", [split_of("a", [0]), split_of("a", [1])], "different file names"),
        ("mixed", [split_of("a", [0])], "several lists"),
    ],
)
def test_lists_that_do_not_fit_the_protocol(protocol: Any, splits: list[Split], message: str) -> None:
    """The error comes before decoding."""
    with pytest.raises(ConfigError, match=message):
        check_protocol(protocol, splits)
