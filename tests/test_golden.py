"""The library reproduces the official implementation's own numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mote_fast import Draws, TrainingMethod, VideoHead, training_loss
from mote_fast.clip import TEMPLATES, ClipTowers, encode_classes, load_towers
from mote_fast.data.sampling import sample_frames, train_segment_bounds
from mote_fast.data.transforms import crop_offsets, evaluation_pixels
from mote_fast.evaluation.protocols import half_class_splits
from mote_fast.head.scores import topk_accuracy, view_scores
from mote_fast.model.released import head_from_released, head_to_released
from mote_fast.training.method import routing_probabilities
from tests.conftest import GOLDEN
from tests.streams import stream_logits
from tests.tolerances import assert_close

HEADS = 2
LOGIT_SCALE = 100.0


@pytest.fixture
def head(released_head: dict[str, Tensor]) -> VideoHead:
    return head_from_released(released_head, HEADS)


@pytest.fixture(scope="module")
def towers(clip_file: Any) -> ClipTowers:
    return load_towers(None, clip_file)


def draws(golden: dict[str, Any], step: int) -> Draws:
    """The experts and temperatures that the official code drew at one step of the trajectory."""
    trajectory = golden["trajectory"]
    return Draws(trajectory["experts"][step], [float(golden["taus"][i]) for i in trajectory["tau_index"][step]])


@torch.no_grad()
def test_head_inference(head: VideoHead, golden_head: dict[str, Tensor]) -> None:
    """Features with and without modulation, logits, and the merged weights behind them."""
    frames, classes = golden_head["input.video"], golden_head["input.classes"]
    assert_close(head.features(frames), golden_head["eval.agg_no_tfm"])
    assert_close(head.features(frames, classes), golden_head["eval.agg_tfm"])
    assert_close(head(frames, classes), golden_head["eval.logits"])
    plain = head.fold()
    assert_close(plain(frames, classes), golden_head["eval.logits"])
    assert_close(plain.state_dict()["blocks.0.mlp.up.weight"], golden_head["eval.merged_up_weight.layer0"])


def test_training_step_values_and_gradients(
    head: VideoHead, golden: dict[str, Any], golden_head: dict[str, Tensor]
) -> None:
    """Both streams' logits, every part of the loss, and the gradient of the input and of every parameter."""
    frames = golden_head["input.video"].clone().requires_grad_()
    text, labels = golden_head["input.text"], golden_head["input.labels"]
    routed, merged = stream_logits(head, frames, text, draws(golden, 0))
    loss = training_loss(head, frames, text, labels, LOGIT_SCALE, draws=draws(golden, 0))
    loss.total.backward()
    assert_close(routed, golden_head["train.logits_expert"])
    assert_close(merged, golden_head["train.logits_merged"])
    parts = {"loss": loss.total, "loss_expert": loss.routed, "loss_merged": loss.merged, "mse": loss.mse}
    for name, value in parts.items():
        assert_close(value, golden_head[f"train.{name}"])
    assert frames.grad is not None
    assert_close(frames.grad, golden_head["train.grad.input"])

    # A head whose parameters are the gradients lists them under the released names.
    for parameter in head.parameters():
        assert parameter.grad is not None
        parameter.data = parameter.grad
    gradients = head_to_released(head)
    expected = {name.removeprefix("train.grad."): value for name, value in golden_head.items() if "train.grad" in name}
    del expected["input"]
    assert len(expected) == 49
    for name, value in expected.items():
        assert_close(gradients[name], value)


def test_ten_step_trajectory(head: VideoHead, golden: dict[str, Any], golden_head: dict[str, Tensor]) -> None:
    """Ten AdamW steps with the same draws follow the official losses."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.2)
    losses = []
    for step in range(10):
        inputs = (golden_head[f"input.{name}"] for name in ("video", "text", "labels"))
        loss = training_loss(head, *inputs, LOGIT_SCALE, draws=draws(golden, step)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert_close(torch.stack(losses), torch.tensor(golden["trajectory"]["losses"]), "trajectory")


def test_routing_and_temperatures(golden: dict[str, Any]) -> None:
    """The distributions that training draws from are the official ones."""
    assert_close(routing_probabilities(4), torch.tensor(golden["routing_prob_E4"]))
    assert list(TrainingMethod().temperatures()) == [float(tau) for tau in golden["taus"]]


def test_sampling(golden: dict[str, Any]) -> None:
    """All 368 index lists and all training bounds, exactly."""
    assert len(golden["sampling"]) == 368
    for key, expected in golden["sampling"].items():
        mode, segments, *clips, frames = key.split("/")
        found = sample_frames(
            int(frames.removeprefix("len")),
            int(segments.removeprefix("seg")),
            "val" if mode == "val" else "test",
            clips=int(clips[0].removeprefix("clips")) if clips else 1,
            dense=mode.startswith("dense"),
        )
        assert found.flatten().tolist() == expected, key
    for key, expected in golden["train_segment_bounds"].items():
        segments, frames = key.split("/")
        found = train_segment_bounds(int(frames.removeprefix("len")), int(segments.removeprefix("seg")))
        assert found.tolist() == expected, key


@torch.no_grad()
def test_clip_features_and_pipeline(
    towers: ClipTowers, golden_clip: dict[str, Tensor], released_head: dict[str, Tensor]
) -> None:
    """Tokens, text features, class features, frame features, and the logits at the end of the whole pipeline."""
    names = json.loads((GOLDEN / "clip.json").read_text())["class_names"]
    assert len(TEMPLATES) == 28
    for index in (0, 27):
        tokens = towers.tokenizer([TEMPLATES[index].format(name) for name in names])
        assert torch.equal(tokens, golden_clip[f"tokens.template{index}"])
    assert_close(towers.encode_tokens(golden_clip["tokens.template0"]), golden_clip["text.template0"])
    classes = encode_classes(towers, names)
    assert_close(classes, golden_clip["text.class_features"])
    frames = towers.encode_frames(golden_clip["image.input"]).unflatten(0, (2, 8))
    assert_close(frames, golden_clip["image.frame_features"])
    assert_close(towers.logit_scale, golden_clip["logit_scale"])
    logits = head_from_released(released_head, HEADS)(frames, classes)
    assert_close(logits, golden_clip["pipeline.logits"])


def test_crops() -> None:
    """The official crops of a real-sized frame: pixels within another bicubic's error, offsets exactly."""
    golden_pixels = load_file(GOLDEN / "transforms.safetensors")
    frame = golden_pixels["frame"][None]
    one = evaluation_pixels(frame, crops=1)
    three = evaluation_pixels(frame, crops=3)
    assert_close(one[0, 0], golden_pixels["one_crop"].float(), "pixels")
    assert_close(three[0], golden_pixels["three_crop"].float().unflatten(0, (3, 3)), "pixels")
    assert crop_offsets(224, 299, 224, 3) == [(0, 0), (0, 72), (0, 36)]
    # Of the official script, for a portrait frame.
    assert crop_offsets(299, 224, 224, 3) == [(36, 0)] * 3


def test_protocols(golden: dict[str, Any]) -> None:
    """Video scores from views, and the classes of each half-class split; its accuracies: tests/evaluation."""
    tensors = load_file(GOLDEN / "protocol.safetensors")
    scores = view_scores(tensors["views.logits"], golden["views"]["views"])
    assert_close(scores, tensors["views.scores"])
    for k in (1, 5):
        assert topk_accuracy(scores, tensors["views.labels"], k) == pytest.approx(golden["views"][f"top{k}"], abs=1e-4)
    found = [half.tolist() for half in half_class_splits(len(tensors["half.text"]))]
    assert found == [names for names, *_ in golden["half_class"]["splits"]]
