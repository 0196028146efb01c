"""A training step on a GPU waits for no copy and reads nothing back, found by pretending that there is a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="on a GPU the optimiser launches Triton kernels, and Triton is not installed")

from launches import recorded

from mote_fast.data.items import VideoItem
from mote_fast.data.loading.video_loader import LoaderOptions, VideoLoader
from mote_fast.data.plan import ClipRecipe
from mote_fast.training.build import Loaders, build_optimizer
from mote_fast.training.config.sections import OptimConfig
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


def moves_of_second_step(monkeypatch: pytest.MonkeyPatch, method: TrainingMethod, **options: Any) -> Moves:
    """The transfers of a whole step after the first, batches included."""
    monkeypatch.setattr("mote_fast.clip.towers.resolve_backend", lambda *_: "sdpa")
    model = trainable(classes=CLASSES)
    preprocessing = model.clip.config.preprocessing
    with pretended_cuda() as moves, recorded():
        model.to("cuda")
        loader = Clips(
            ClipRecipe(frames=3, preprocessing=preprocessing), LoaderOptions(2, training=True, device="cuda")
        )
        items = [VideoItem("a.mp4", 0), VideoItem("b.mp4", 3, others=(1,))] if method.loss == "bce" else None
        loaders = Loaders(loader, None, 2, 0, 0, "", items)
        optimizer = build_optimizer(model, OptimConfig())
        objective, arithmetic = Objective(model, method, **options), Arithmetic("fp32", CUDA)
        batches = loaders.with_targets(loader.epoch(0), CLASSES)
        for step in range(2):
            moves.clear()
            draws = draws_of_step(model.head, method, 2, seed=0, step=step, rank=0)
            result = train_step(objective, optimizer, batches, draws, arithmetic, clip_gradient=1.0)
            assert result.losses.device == CUDA
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
