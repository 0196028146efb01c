"""A training step on a GPU waits for no copy and reads nothing back, found by pretending that there is a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="on a GPU the optimiser launches Triton kernels, and Triton is not installed")

from launches import recorded

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.feature_files import INDEX_FILE, TENSOR, FeatureFile, FeatureIndex, StoredFeatures
from mote_fast.data.feature_loader import FeatureLoader
from mote_fast.data.items import VideoItem
from mote_fast.data.loading.video_loader import LoaderOptions, VideoLoader
from mote_fast.data.plan import ClipRecipe
from mote_fast.runtime.weights import save_tensors
from mote_fast.training.build import Loaders, build_optimizer
from mote_fast.training.config.sections import OptimConfig, Precision
from mote_fast.training.method import TrainingMethod
from mote_fast.training.step import Arithmetic, Objective, draws_of_step, train_step
from tests.pretended_cuda import CUDA, Moves, pretended_cuda
from tests.training.test_step import trainable

CLASSES = 5


class Clips(VideoLoader):
    """Delivers two clips a batch from memory, as every loader delivers what it has decoded."""

    def epoch(self, epoch: int, start: int = 0) -> Any:
        while True:
            yield self._deliver(self._new_pixels(2), [0, 3], [0, 1], ())

    def close(self) -> None:
        """Nothing is open."""


def stored_clips(folder: Path, width: int) -> FeatureLoader:
    """Batches of the stored features of six videos."""
    save_tensors({TENSOR: torch.randn(6, 1, 3, width)}, folder / "features.safetensors")
    files = (FeatureFile("features.safetensors", tuple(range(6))),)
    (folder / INDEX_FILE).write_text(FeatureIndex({}, (1, 3, width), "float32", files).document())
    listed = VideoDataset([VideoItem(f"{at}.mp4", at % CLASSES) for at in range(6)], ClipRecipe(frames=3))
    return FeatureLoader(listed, StoredFeatures(folder, {}), LoaderOptions(2, training=True, device="cuda"))


def moves_of_second_step(
    monkeypatch: pytest.MonkeyPatch,
    method: TrainingMethod,
    passes: int = 2,
    precision: Precision = "fp32",
    features: Path | None = None,
    train_clip: bool = True,
    **options: Any,
) -> Moves:
    """The transfers of a whole step after the first, batches included."""
    monkeypatch.setattr("mote_fast.clip.towers.resolve_backend", lambda *_: "sdpa")
    # Its rules for CUDA need a device.
    monkeypatch.setattr(Arithmetic, "autocast", lambda _: nullcontext())
    model = trainable(classes=CLASSES, train_clip=train_clip)
    preprocessing = model.clip.config.preprocessing
    with pretended_cuda() as moves, recorded():
        model.to("cuda")
        loader: VideoLoader = (
            Clips(ClipRecipe(frames=3, preprocessing=preprocessing), LoaderOptions(2, training=True, device="cuda"))
            if features is None
            else stored_clips(features, model.clip.embed_dim)
        )
        items = [VideoItem("a.mp4", 0), VideoItem("b.mp4", 3, others=(1,))] if method.loss == "bce" else None
        loaders = Loaders(loader, None, 2, 0, 0, "", items)
        optimizer = build_optimizer(model, OptimConfig())
        objective = Objective(model, method, train_clip=train_clip, cached=features is not None, **options)
        arithmetic = Arithmetic(precision, CUDA)
        for step in range(2):
            # An epoch each, of three batches: those of stored features are read when they are asked for.
            batches = loaders.with_targets(loader.epoch(step), CLASSES)
            moves.clear()
            draws = draws_of_step(model.head, method, passes, seed=0, step=step, rank=0)
            result = train_step(objective, optimizer, batches, draws, arithmetic, clip_gradient=1.0)
            assert result.losses.device == CUDA
            assert result.gradient_norm is not None
            assert result.gradient_norm.device == CUDA
    return moves


@pytest.mark.parametrize(
    "method",
    [
        TrainingMethod(),
        TrainingMethod(loss="bce"),
        TrainingMethod(expert_data="all", regulariser="none"),
    ],
    ids=["paper", "bce", "every-expert"],
)
def test_the_host_waits_for_no_copy(monkeypatch: pytest.MonkeyPatch, method: TrainingMethod) -> None:
    """Of a step over two batches: their clips, their labels (and targets), and the draws of the step are what moves."""
    moves = moves_of_second_step(monkeypatch, method)
    assert not moves.blocking
    # Clips and labels; the computing stream waits for each pair, and holds its memory.
    assert moves.beside == moves.held == 2 * 2
    assert len(moves.stream.waited_for) >= 2
    assert moves.started.total() == 2 * (3 if method.loss == "bce" else 2) + 1


@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"train_clip": False},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"precision": "fp16", "train_clip": False},
        {"features": True, "train_clip": False},
        {"method": TrainingMethod(regulariser_loss="kl")},
        {"method": TrainingMethod(regulariser_loss="mse")},
    ],
    ids=["tower", "frozen", "bf16", "fp16", "fp16-frozen", "features", "distilled-logits", "distilled-features"],
)
def test_nothing_waits_in_any_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any], passes: int
) -> None:
    """Three passes make the gradients of four experts dense; float16's scaler leaves the skipping to the device."""
    given = {"method": TrainingMethod(), **options}
    if given.get("features"):
        given["features"] = tmp_path
    moves = moves_of_second_step(monkeypatch, given.pop("method"), passes, **given)
    assert not moves.blocking
    assert moves.beside == moves.held == 2 * passes
    assert moves.started.total() == 2 * passes + 1


def test_recomputation_moves_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the backward pass that runs the image tower again."""
    assert not moves_of_second_step(monkeypatch, TrainingMethod(), grad_checkpointing=True).blocking


def test_the_record_knows_a_copy_that_waits() -> None:
    """Numbers sent to the device, memory that is not pinned, and reading on the host are found."""
    with pretended_cuda() as moves:
        there = torch.tensor([1.0], device="cuda")
        torch.zeros(3).to("cuda", non_blocking=True)
        torch.zeros(3).pin_memory().to("cuda")
        assert there.device == CUDA
        assert moves.blocking.total() == 3
        torch.zeros(3).pin_memory().to("cuda", non_blocking=True)
        assert moves.started.total() == 1
        with pytest.raises((RuntimeError, NotImplementedError)):
            there.item()
