"""What all stages of one run share: the model, a video, a label set, and the sizes asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.nn import functional as F

import mote_fast
from mote_fast import VideoClassifier, VideoHead
from mote_fast.cli.options import kinetics400_labels
from mote_fast.clip import ClipTowers
from mote_fast.clip.int8 import Int8Tower
from mote_fast.clip.model_cache import ModelCache
from mote_fast.data import probe
from mote_fast.data.views import ViewPlan, Views, plan_views
from mote_fast.errors import BackendError
from stages import flops

# Command-line name -> the library's.
PRESETS = {"vit-b-16": "ViT-B-16", "vit-l-14": "ViT-L-14", "tiny": "tiny"}
# The released zero-shot protocol: three clips along time, one crop. One view in a quick run.
VIEWS, QUICK_VIEWS = Views(3, 1), Views(1, 1)
LABELS = 400
COMPILED, INT8 = "mote_fast, compiled", "mote_fast, int8"
SEED = 0


class Prepared(NamedTuple):
    """A classifier, and the seconds up to the end of its first call."""

    model: VideoClassifier
    seconds: float


@dataclass
class Setting:
    """One run of the benchmark.

    Attributes:
        preset: a key of ``PRESETS``.
        video: the file that is decoded.
        folder: scratch space of the run.
        device: where the model computes.
        dtype: of the towers and the head.
        frames: T, frames per view.
        experts: E, experts per layer.
        batches: views per call; empty leaves the choice to each stage.
        quick: one view, fewer rounds, and neither the arm that compiles nor the one in int8.
        left_out: arms that this machine cannot have, and why.
    """

    preset: str
    video: Path
    folder: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    frames: int = 8
    experts: int = 4
    batches: tuple[int, ...] = ()
    quick: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    def rounds(self, full: int) -> int:
        """Turns of each arm: ``full``, or few."""
        return max(2, full // 5) if self.quick else full

    @property
    def views(self) -> Views:
        """The views that a video is judged by."""
        return QUICK_VIEWS if self.quick else VIEWS

    @property
    def view_counts(self) -> tuple[int, ...]:
        """Views per call of the tower and the head: those asked for, or one and a whole video's."""
        return self.batches or tuple(dict.fromkeys((1, self.views.clips)))

    @cached_property
    def model(self) -> VideoClassifier:
        """The classifier whose parts the stages measure, with random weights that each run draws alike."""
        torch.manual_seed(SEED)
        model = mote_fast.create_model(
            PRESETS[self.preset], experts=self.experts, frames=self.frames, device=self.device, dtype=self.dtype
        )
        model.head.set_train_class_features(self.unit_rows(model.clip.embed_dim, seed=1))
        model.feature_cache = None
        return model.eval()

    @cached_property
    def folded(self) -> VideoClassifier:
        """The same, folded: what a user holds for inference."""
        return self.model.fold()

    @cached_property
    def prepared(self) -> dict[str, Prepared]:
        """The folded classifier in the forms that take long to prepare, which share its weights; none in a quick run.

        A form that this machine cannot have is reported in ``left_out``.
        """
        if self.quick or self.device.type != "cpu" or self.dtype != torch.float32:
            return {}
        found = {}
        for name, prepare in ((COMPILED, _compile), (INT8, self._quantise)):
            towers = self.model.clip
            own = ClipTowers(towers.model, towers.config, towers.tokenizer, towers.attention).eval()
            model = VideoClassifier(own, self.folded.head, self.frames).eval()
            begun = time.perf_counter()
            try:
                prepare(model)
                model.view_features(self.video, self.views)
            except (BackendError, TorchDynamoException) as error:
                self.left_out[name] = str(error).splitlines()[0]
                continue
            found[name] = Prepared(model, time.perf_counter() - begun)
        return found

    def _quantise(self, model: VideoClassifier) -> None:
        # A cache of the run's own: what the export costs is part of the figures.
        tower = Int8Tower(model.clip, ModelCache(self.folder / "int8"))
        tower.prepare()
        model.int8 = tower

    def described(self) -> dict[str, Any]:
        """What a JSON file keeps of the setting."""
        return {
            "preset": self.preset,
            "frames": self.frames,
            "experts": self.experts,
            "quick": self.quick,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "video": self.video.name,
            "views": f"{self.views.clips}x{self.views.crops}",
        }

    @property
    def head(self) -> VideoHead:
        """The head with its experts."""
        return self.model.head

    @cached_property
    def labels(self) -> list[str]:
        """Kinetics-400's names."""
        return kinetics400_labels()[:LABELS]

    @cached_property
    def classes(self) -> Tensor:
        """[400, d], stands for class features where the text tower is not what is measured."""
        return self.unit_rows(self.model.clip.embed_dim, seed=2)

    @cached_property
    def plan(self) -> ViewPlan:
        """The views of the video."""
        return plan_views(probe(self.video).num_frames, self.frames, self.views)

    def unit_rows(self, width: int, seed: int) -> Tensor:
        """Random rows of unit length, one per label."""
        rows = torch.randn(LABELS, width, generator=torch.Generator().manual_seed(seed))
        return F.normalize(rows, dim=-1).to(self.device, self.dtype)

    def random(self, *shape: int, seed: int = 3) -> Tensor:
        """Normal values of a shape, in the run's dtype."""
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return values.to(self.device, self.dtype)

    def image_flops(self, frames: int, *, trimmed: bool) -> float:
        """Operations of the image tower over so many frames."""
        vision = self.model.clip.config.model["vision_cfg"]
        return flops.image_tower(
            frames,
            self.model.clip.image_size,
            vision["patch_size"],
            vision["width"],
            vision["layers"],
            self.model.clip.embed_dim,
            trimmed=trimmed,
        )

    def tower_rows(self, frames: int) -> tuple[int, int]:
        """Rows and width of the matrix that the image tower multiplies for so many frames."""
        vision = self.model.clip.config.model["vision_cfg"]
        tokens = (self.model.clip.image_size // vision["patch_size"]) ** 2 + 1
        return frames * tokens, vision["width"]


def _compile(model: VideoClassifier) -> None:
    model.compile()


def weight_bytes(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters."""
    return sum(parameter.nbytes for parameter in module.parameters())
