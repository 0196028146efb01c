"""A loader of made-up pixels and a small model."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

import mote_fast
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.faults import Failure, FaultLog
from mote_fast.data.loading.order import ALONE, Replica, evaluation_batches

SIZE = 64
CLASSES = 7


def small_model(frames: int = 4) -> mote_fast.VideoClassifier:
    """A small model with fixed weights, experts that differ, and fine-tuning classes, so that modulation acts."""
    torch.manual_seed(0)
    model = mote_fast.create_model("ViT-test", frames=frames)
    width = model.clip.embed_dim
    model.head.set_train_class_features(torch.nn.functional.normalize(torch.randn(6, width), dim=-1))
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_classes(model: mote_fast.VideoClassifier, classes: int = CLASSES, seed: int = 1) -> Tensor:
    """Class features [C, d]."""
    return torch.randn(classes, model.clip.embed_dim, generator=torch.Generator().manual_seed(seed))


def made_up_pixels(videos: int, views: int = 2, frames: int = 4, size: int = SIZE) -> Tensor:
    """[videos, views, frames, 3, size, size], a function of the arguments; every video has another mean."""
    generator = torch.Generator().manual_seed(videos)
    means = torch.randn(videos, 1, 1, 3, 1, 1, generator=generator)
    return means + torch.randn(videos, views, frames, 3, size, size, generator=generator)


class MadeUpLoader:
    """Yields the videos ``pixels [N, V, T, 3, S, S]`` of one process; those of ``broken`` cannot be read."""

    def __init__(
        self,
        pixels: Tensor,
        batch_size: int = 2,
        replica: Replica = ALONE,
        broken: Collection[int] = (),
        labels: Tensor | None = None,
    ) -> None:
        self.faults = FaultLog()
        self.pixels = pixels
        self.labels = torch.arange(len(pixels)) % CLASSES if labels is None else labels
        self.broken = broken
        self.closed = False
        self.yielded: list[int] = []
        self._slots = evaluation_batches(len(pixels), batch_size, replica=replica)

    @property
    def batches_per_epoch(self) -> int:
        return len(self._slots)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for slots in self._slots[start:]:
            read = [index for index in slots.indices if index not in self.broken]
            failures = [failure_of(index) for index in slots.indices if index in self.broken]
            self.yielded += read
            yield Batch(self.pixels[read].flatten(0, 1), self.labels[read], torch.tensor(read, dtype=int), failures)

    def close(self) -> None:
        self.closed = True


def failure_of(index: int) -> Failure:
    return Failure(index, f"video{index}.mp4", "UndecodableVideoError", "made to fail")
