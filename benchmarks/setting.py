"""What a benchmark is given: the sizes asked for, and the model, the video and the label set that its cases share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.nn import functional as F

from mote_fast import VideoClassifier, create_model
from mote_fast.cli.inputs import kinetics400_labels
from mote_fast.clip import ClipTowers
from mote_fast.clip.int8 import Int8Backend, Int8Tower
from mote_fast.clip.model_cache import ModelCache
from mote_fast.data import probe
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.views import ViewPlan, Views, plan_views
from mote_fast.errors import BackendError
from mote_fast.head.head_config import HeadConfig

# Ten seconds at Kinetics' usual size and rate.
SECONDS, RATE, HEIGHT, WIDTH = 10, 30, 256, 340
# Heads by the library's name of their towers (docs/method.md, Sizes).
HEADS = {
    "ViT-B-16": HeadConfig(512, 8, 4, 4),
    "ViT-L-14": HeadConfig(768, 12, 6, 4),
    "ViT-test": HeadConfig(64, 1, 2, 4),
}
# The official zero-shot protocol: three clips along time, one crop. One view in a quick run.
VIEWS, QUICK_VIEWS = Views(3, 1), Views(1, 1)
LABELS = 400
COMPILED, INT8, OPENVINO = "mote_fast, compiled", "mote_fast, int8", "mote_fast, int8 in OpenVINO"
SEED = 0


def scene(frames: int) -> np.ndarray:
    """A textured background that the camera circles over, and a square that crosses it: uint8 [frames, H, W, 3]."""
    texture = np.random.default_rng(0).integers(0, 255, (HEIGHT // 4 + 64, WIDTH // 4 + 64, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(texture).resize((WIDTH + 256, HEIGHT + 256), Image.Resampling.BICUBIC))
    out = np.empty((frames, HEIGHT, WIDTH, 3), np.uint8)
    for at in range(frames):
        top, left = int(64 + 60 * np.sin(at / 20)), int(64 + 60 * np.cos(at / 27))
        out[at] = wide[top : top + HEIGHT, left : left + WIDTH]
        down, across = (at * 3) % (HEIGHT - 60), (at * 5) % (WIDTH - 60)
        out[at, down : down + 60, across : across + 60] = (at % 255, 128, 255 - at % 255)
    return out


def write_scene(path: Path, seconds: float) -> Path:
    """Write so much of the scene as H.264 with few key frames."""
    return Path(write_video(path, scene(round(seconds * RATE)), RATE, g=250, preset="medium"))


@dataclass
class Setting:
    """One run of a benchmark, with ``folder`` as its scratch space.

    ``given`` is the file that is decoded (by default one is generated), ``clips`` a folder of real ones. Empty
    ``stages`` mean all, empty ``batches`` (views per call) are each benchmark's own. ``dtype`` is that of towers and
    head at inference. A quick run has few turns of small cases, and neither the arm that compiles nor the one in int8.
    ``arms`` are those measured beside the baseline and ours, all where empty. ``processor_time`` counts that of all
    threads, in place of the time that passes. ``left_out`` says which arms this machine cannot have, and why.
    """

    folder: Path
    presets: tuple[str, ...] = ("ViT-B-16",)
    given: Path | None = None
    clips: Path | None = None
    stages: tuple[str, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    frames: int = 8
    experts: int = 4
    batches: tuple[int, ...] = ()
    quick: bool = False
    arms: tuple[str, ...] = ()
    processor_time: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """What a JSON file keeps of the setting."""
        kept = {
            name: getattr(self, name)
            for name in ("presets", "frames", "experts", "quick", "processor_time", "left_out")
        }
        kept |= {"device": str(self.device), "dtype": str(self.dtype).removeprefix("torch.")}
        video = self.given.name if self.given else "generated"
        return kept | {"presets": [*self.presets], "video": video, "views": f"{self.views.clips}x{self.views.crops}"}

    def turns(self, full: int) -> int:
        """Turns of each arm: ``full``, or few."""
        return max(2, full // 5) if self.quick else full

    def wants(self, arm: str) -> bool:
        """Whether an arm that can be left out is measured."""
        return not self.arms or arm in self.arms

    @property
    def preset(self) -> str:
        """The model, where a benchmark needs one."""
        return self.presets[0]

    @property
    def heads(self) -> dict[str, HeadConfig]:
        """Sizes of every preset's head."""
        return {name: replace(HEADS[name], experts=self.experts) for name in self.presets}

    @property
    def views(self) -> Views:
        """The views that a video is judged by."""
        return QUICK_VIEWS if self.quick else VIEWS

    @property
    def view_counts(self) -> tuple[int, ...]:
        """Views per call of the tower and the head: those asked for, or one, and a whole video's."""
        return tuple(dict.fromkeys((*(self.batches or (1,)), self.views.clips)))

    @cached_property
    def video(self) -> Path:
        """The file that is decoded."""
        return self.given or write_scene(self.folder / "generated.mp4", 2 if self.quick else SECONDS)

    @cached_property
    def plan(self) -> ViewPlan:
        """The views of the video."""
        return plan_views(probe(self.video).num_frames, self.frames, self.views)

    @cached_property
    def model(self) -> VideoClassifier:
        """The classifier whose parts are measured, with random weights that each run draws alike."""
        torch.manual_seed(SEED)
        model = create_model(
            self.preset, experts=self.experts, frames=self.frames, device=self.device, dtype=self.dtype
        )
        model.head.set_train_class_features(self.class_rows(LABELS, model.clip.embed_dim))
        model.feature_cache = None
        return model.eval()

    @cached_property
    def folded(self) -> VideoClassifier:
        """The same classifier, folded: what a user holds for inference."""
        return self.model.fold()

    @cached_property
    def prepared(self) -> dict[str, tuple[VideoClassifier, float]]:
        """The folded classifier in forms that take long to prepare, and the seconds up to the end of a first call."""
        if self.quick or self.device.type != "cpu" or self.dtype != torch.float32:
            return {}

        def quantise(model: VideoClassifier, backend: Int8Backend) -> None:
            model.int8 = self.int8_tower(model.clip, backend)
            model.int8.prepare()

        found = {}
        ways: dict[str, Callable[[VideoClassifier], object]] = {
            COMPILED: VideoClassifier.compile,
            INT8: partial(quantise, backend="onnxruntime"),
            OPENVINO: partial(quantise, backend="openvino"),
        }
        for name, prepare in ways.items():
            if not self.wants(name):
                continue
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
            found[name] = model, time.perf_counter() - begun
        return found

    def int8_tower(self, towers: ClipTowers, backend: Int8Backend = "onnxruntime") -> Int8Tower:
        """The towers in int8, in a cache of the run's own: what the export costs is part of the figures."""
        return Int8Tower(towers, ModelCache(self.folder / "int8"), backend=backend)

    @cached_property
    def labels(self) -> list[str]:
        """Kinetics-400's names."""
        return kinetics400_labels()[:LABELS]

    @cached_property
    def classes(self) -> Tensor:
        """[400, d], in place of class features if the text tower is not measured."""
        return self.class_rows(LABELS, self.model.clip.embed_dim)

    def class_rows(self, count: int, width: int, seed: int = 1) -> Tensor:
        """Random rows of unit length, in place of class features.

        Those of training are those of the test: for strange ones, modulation would leave out the temporal features,
        and arms would agree whatever they compute.
        """
        return F.normalize(self.random(count, width, seed=seed).float(), dim=-1).to(self.dtype)

    def random(self, *shape: int, seed: int = 3) -> Tensor:
        """Normal values of a shape, in the run's dtype."""
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return values.to(self.device, self.dtype)
