"""The sections of a training configuration: frozen, typed, with the paper's ViT-B/16 recipe as defaults.

Each section checks its own values at construction; the messages start with the field's name. ``TrainConfig`` checks the
sections against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from mote_fast.clip.published import Activation
from mote_fast.data.decoding.frame_folders import FRAME_TEMPLATE, check_template
from mote_fast.data.decoding.video_info import PixelAspect
from mote_fast.data.loaders import LoaderBackend
from mote_fast.data.plan import Augmentation
from mote_fast.data.transforms import CropsAlong
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError
from mote_fast.head.head_config import HeadOptions
from mote_fast.model.original import check_share

Decoder = Literal["auto", "torchcodec", "pyav"]
Schedule = Literal["cosine", "multistep"]
Precision = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]

# What autocast computes in; None without autocast.
AUTOCAST_DTYPES: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class DataConfig:
    """The videos, and how clips are made from them.

    Attributes:
        train_list: file of training videos, see ``read_list``; a .csv file has the columns ``path`` and ``label``. Or
            a folder of tar shards.
        labels: file of class names in the order of their indices, see ``read_labels``.
        val_list: the same for validation; null leaves it out.
        templates: file of templates around class names, one a line; null takes the paper's, see ``read_prompts``.
        descriptions: JSON file, class name -> list of sentences about the class; null for none.
        description_weight: share of the descriptions in a class's feature, 0 to 1.
        train_root: folder that the paths of ``train_list`` are relative to.
        val_root: folder that the paths of ``val_list`` are relative to.
        frames: T, frames of a clip.
        size: side of the crops, pixels; null takes the image tower's.
        batch_size: training clips per step and process.
        val_batch_size: validation videos per step and process; null takes ``batch_size``.
        workers: decoding workers per process; 0 decodes in the training process.
        augmentation: "kinetics", "ssv2" (flips swap left and right labels), or "none" (validation's crop and frames).
        flip_labels: file of the labels of mirrored videos; "ssv2" needs it.
        dense: take the frames from a window of the video instead of all of it.
        views: clips x crops of a validation video.
        pixel_aspect: "apply" scales videos whose pixels are not square to their true shape; "ignore" takes them as
            square, as the released recipe does.
        crops_along: views of three crops lie along the "width", as in the released recipe, so that those of a portrait
            video are equal; or along the "long_side".
        decode: library that decodes on the CPU.
        backend: loader: "dali", "torchcodec-gpu" or "cpu"; "auto" takes the fastest that gives the right frames on this
            machine.
        time_limit: seconds that reading one video may take.
        frame_template: file names of extracted frames, for lists of frame folders.
        features: folder that `mote-fast prepare features` wrote; the image tower, which must be frozen, is then not
            run, and no video is opened. null takes the videos.
    """

    train_list: str = ""
    labels: str = ""
    val_list: str | None = None
    templates: str | None = None
    descriptions: str | None = None
    description_weight: float = 0.5
    train_root: str = ""
    val_root: str = ""
    frames: int = 8
    size: int | None = None
    batch_size: int = 64
    val_batch_size: int | None = None
    workers: int = 8
    augmentation: Augmentation = "kinetics"
    flip_labels: str | None = None
    dense: bool = False
    views: str = "1x1"
    pixel_aspect: PixelAspect = "ignore"
    crops_along: CropsAlong = "width"
    decode: Decoder = "auto"
    backend: LoaderBackend = "auto"
    time_limit: float = 60.0
    frame_template: str = FRAME_TEMPLATE
    features: str | None = None

    def __post_init__(self) -> None:
        _at_least(1, frames=self.frames, size=self.size, batch_size=self.batch_size, val_batch_size=self.val_batch_size)
        _at_least(0, workers=self.workers)
        _positive(time_limit=self.time_limit)
        if not 0 <= self.description_weight <= 1:
            raise ConfigError(f"description_weight must be in [0, 1], got {self.description_weight}")
        Views.parse(self.views)
        check_template(self.frame_template)
        if self.augmentation == "ssv2" and self.flip_labels is None:
            raise ConfigError("augmentation 'ssv2' swaps the labels of mirrored videos: give the file data.flip_labels")


@dataclass(frozen=True, kw_only=True)
class ModelSection(HeadOptions):
    """The model that is trained, and its initial weights; the options of the head are ``HeadOptions``.

    Attributes:
        arch: "ViT-B-16", "ViT-L-14", "ViT-test" (small, for tests), or any architecture that open_clip knows.
        clip_pretrained: CLIP's own weights: an open_clip tag or a file; null gives random towers. With a released
            checkpoint, the CLIP that it was tuned from.
        activation: activation of a weights file of unknown origin; null if the origin determines it.
        preprocessing: an open_clip tag with the preprocessing of a weights file of unknown origin; null if the origin
            or the architecture determines it.
        checkpoint: released .pt file, model folder, name of a model (`mote-fast models`) or of the hub (`hf-hub:...`)
            to fine-tune, with its own towers and head: the other keys of this section, except ``clip_pretrained`` and
            ``train_clip``, are then ignored. null starts from a fresh head.
        layers: L, temporal layers; null takes the architecture's (4 for ViT-B-16, 6 for ViT-L-14).
        heads: attention heads of a temporal layer; null takes the text tower's width / 64.
        experts: E, experts per layer; 0 or 1 is a plain FFN.
        train_clip: tune CLIP's image tower too; false freezes it.
        interpolate: share of the tuned image tower, the rest being the original CLIP's, that the written models ask for
            at evaluation, see ``mote_fast.load``; null asks for none. Training and its validations do without.
    """

    arch: str = "ViT-B-16"
    clip_pretrained: str | None = "openai"
    activation: Activation | None = None
    preprocessing: str | None = None
    checkpoint: str | None = None
    layers: int | None = None
    heads: int | None = None
    experts: int = 4
    train_clip: bool = True
    interpolate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_depth(1 if self.layers is None else self.layers, self.experts)
        if self.header == "mean" and not self.train_clip:
            raise ConfigError("train_clip is false and header is 'mean': there is nothing to train")
        if self.interpolate is not None:
            check_share("interpolate", self.interpolate)


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser, schedule and precision (docs/method.md, Optimisation).

    Attributes:
        lr: learning rate of the head.
        clip_ratio: learning rate of CLIP over that of the head.
        weight_decay: AdamW's, on everything.
        betas: AdamW's.
        eps: AdamW's.
        epochs: passes over the training list.
        warmup_epochs: epochs of linear warm-up from 0.
        schedule: after the warm-up: "cosine" to 0, or "multistep".
        milestones: epochs at which "multistep" decays.
        decay: factor of each such step.
        clip_gradient: largest norm of the whole gradient; null does not clip.
        accumulation: batches per optimiser step.
        precision: precision of the towers and the head; weights and optimiser stay float32. "fp16" scales the loss and
            needs a GPU.
        grad_checkpointing: recompute the image tower's activations in the backward pass: less memory, more time.
        compile: run the image tower through torch.compile; "auto" does on a GPU where the compiler works.
    """

    lr: float = 5e-5
    clip_ratio: float = 0.07
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    epochs: int = 30
    warmup_epochs: float = 5.0
    schedule: Schedule = "cosine"
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    clip_gradient: float | None = None
    accumulation: int = 1
    precision: Precision = "bf16"
    grad_checkpointing: bool = False
    compile: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        _at_least(1, epochs=self.epochs, accumulation=self.accumulation)
        _at_least(0, clip_ratio=self.clip_ratio, weight_decay=self.weight_decay, warmup_epochs=self.warmup_epochs)
        _positive(lr=self.lr, eps=self.eps, decay=self.decay, clip_gradient=self.clip_gradient)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must lie in [0, 1), got {list(self.betas)}")
        if self.schedule == "cosine" and self.milestones:
            raise ConfigError("milestones belong to schedule 'multistep', but schedule is 'cosine'")
        if self.schedule == "multistep":
            self._check_milestones()

    def _check_milestones(self) -> None:
        if not self.milestones:
            raise ConfigError("milestones are missing: schedule 'multistep' needs the epochs at which to decay")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ConfigError(f"milestones must ascend, got {list(self.milestones)}")
        if self.milestones[0] <= self.warmup_epochs:
            raise ConfigError(
                f"milestones must come after the warm-up of {self.warmup_epochs:g} epochs, got {list(self.milestones)}"
            )


@dataclass(frozen=True)
class RunConfig:
    """The output and device of the run, and when it reports, validates and saves.

    Attributes:
        output: folder of checkpoints, logs and metrics.
        seed: seed of all random choices.
        resume: "auto" continues the newest checkpoint in ``output`` if there is one, "none" starts from scratch, a path
            continues that checkpoint.
        save_every: optimiser steps between checkpoints; the end of an epoch always saves; 0 saves only there.
        keep_last: checkpoints kept, besides the best.
        eval_every: epochs between validations; the last epoch always validates; 0 never validates.
        log_every: optimiser steps between log lines.
        device: device of the run; "auto" takes CUDA if there is a GPU.
        sync_routing: draw the same experts and temperatures on every process; the official code does not.
        tensorboard: write TensorBoard files besides the JSONL metrics.
        max_steps: optimiser steps after which the run stops; null runs all epochs.
        profile_steps: steps that PyTorch's profiler records in ``output``/profile, after the first five of a call.
    """

    output: str = "runs/mote"
    seed: int = 1024
    resume: str = "auto"
    save_every: int = 1000
    keep_last: int = 2
    eval_every: int = 1
    log_every: int = 10
    device: Device = "auto"
    sync_routing: bool = False
    tensorboard: bool = True
    max_steps: int | None = None
    profile_steps: int = 0

    def __post_init__(self) -> None:
        _at_least(1, keep_last=self.keep_last, log_every=self.log_every, max_steps=self.max_steps)
        _at_least(0, save_every=self.save_every, eval_every=self.eval_every, profile_steps=self.profile_steps)
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"seed must fit in 64 bits, got {self.seed}")
        if not self.resume:
            raise ConfigError("resume must be 'auto', 'none' or a checkpoint")
        if not self.output:
            raise ConfigError("output must name a folder")


def _at_least(low: int, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value >= low:
            raise ConfigError(f"{name} must be at least {low}, got {value}")


def _positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be above 0, got {value}")
