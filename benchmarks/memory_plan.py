"""The memory that a training takes on a GPU, counted before anything runs.

The step itself runs on PyTorch's fake tensors, which have shapes and no data: every allocation of forward and backward
is counted when it appears and when it is freed, for any size in seconds and on any machine. Two things are as on a
GPU, not as on this CPU: attention keeps no matrix of weights, and layer normalisation under autocast is float32.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.training.build import build_model, build_optimizer
from mote_fast.training.config.train_config import TrainConfig, load_config, stated_options
from mote_fast.training.optim import HeadAdamW
from mote_fast.training.step import FRAMES_PER_RECOMPUTATION, Objective, draws_of_step

GIB = 2**30

# The paper's GPUs are RTX 4090.
CARD = 24 * GIB
# For CUDA's context and libraries, and what its allocator cannot use: an allowance, not counted.
RESERVE = 2 * GIB

# Kinetics-400's; the class features of any label set are small beside the rest.
CLASSES = 400
# Recomputed groups of frames that are counted.
GROUPS = 3

# The batch of a step, and the next one, which is loaded meanwhile.
BATCHES = 2

# A configuration and settings on top, for each row of the table in docs/training.md.
DOCUMENTED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("k400_vit_b_16.yaml", ()),
    ("k400_vit_b_16.yaml", ("optim.grad_checkpointing=false",)),
    ("k400_vit_b_16.yaml", ("optim.precision=fp32",)),
    ("k400_vit_l_14.yaml", ()),
    ("k400_vit_l_14.yaml", ("optim.grad_checkpointing=false",)),
    ("k400_vit_l_14.yaml", ("optim.precision=fp32",)),
    ("table4/vit_l_14_f16.yaml", ()),
    ("table1/plain.yaml", ()),
    ("table2/b_experts_6.yaml", ()),
    ("folder.yaml", ()),
)


class MemoryPlan(NamedTuple):
    """Bytes on one GPU.

    Attributes:
        weights: parameters and buffers, float32, also of the text tower.
        moments: AdamW's two.
        gradients: those that processes exchange, which stay allocated between steps; the experts' are factored.
        batches: pixels.
        step: the most that forward, backward and update hold at once beyond the above.
    """

    weights: int
    moments: int
    gradients: int
    batches: int
    step: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)

    @property
    def fits(self) -> bool:
        """Whether the paper's card has room for it."""
        return self.total + RESERVE <= CARD


def plan(config: TrainConfig) -> MemoryPlan:
    """Count the memory of a configuration's training on one of its GPUs."""
    data, optim = config.data, config.optim
    clips = data.batch_size
    if optim.grad_checkpointing:
        # Groups of frames are recomputed one after another and are alike, so that a few need what many do.
        clips = min(clips, math.ceil(GROUPS * FRAMES_PER_RECOMPUTATION / data.frames))
    model, optimizer = _fake_model(config)
    step, left = step_bytes(config, model, clips)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    experts = set(optimizer.expert_weights)
    # The update takes the roots of a group's second moments at once.
    roots = max(_bytes(set(group["params"]) - experts) for group in optimizer.param_groups)
    return MemoryPlan(
        _bytes([*model.parameters(), *model.buffers()]),
        2 * _bytes(trained),
        _bytes(set(trained) - experts),
        BATCHES * data.batch_size * data.frames * 3 * model.clip.image_size**2 * torch.float32.itemsize,
        max(step, left + roots),
    )


def step_bytes(config: TrainConfig, model: VideoClassifier, clips: int) -> tuple[int, int]:
    """Run forward and backward of a batch; return the most bytes that they held at once, and those left at the end."""
    data, optim, method = config.data, config.optim, config.method
    # Which experts are drawn takes no memory; numbers alone can index fake tensors.
    draws = replace(draws_of_step(model.head, method, 1, seed=0, step=0, rank=None)[0], down_experts=None)
    objective = Objective(
        model, method, train_clip=config.model.train_clip, grad_checkpointing=optim.grad_checkpointing
    )
    autocast = nullcontext() if optim.precision == "fp32" else torch.autocast("cpu", torch.bfloat16)
    with FakeTensorMode(allow_non_fake_inputs=True), _Allocations() as allocated, _layer_norm_as_on_a_gpu():
        side = model.clip.image_size
        pixels = torch.empty(clips, data.frames, 3, side, side)
        labels = torch.zeros(clips, CLASSES) if method.loss == "bce" else torch.zeros(clips, dtype=torch.int64)
        before = allocated.now
        with autocast:
            loss = objective(pixels, labels, draws)
        loss.total.backward()
        return allocated.most - before, allocated.now - before


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration whose data need not be on this machine."""
    needed = ["data.train_list", "data.val_list", "data.labels"]
    stated = stated_options(path)
    if stated.get("data.augmentation") == "ssv2" or stated.get("data.flip_labels"):
        needed.append("data.flip_labels")
    return load_config(path, [*(f"{key}={path}" for key in needed), *overrides])


def row(name: str, config: TrainConfig, found: MemoryPlan) -> str:
    """Return a row of the table."""
    data, optim = config.data, config.optim
    numbers = " | ".join(f"{part / GIB:.1f}" for part in (*found, found.total))
    recomputed = "yes" if optim.grad_checkpointing else "no"
    head = f"{name} | {config.model.arch} | {data.batch_size} x {data.frames} | {optim.precision} | {recomputed}"
    return f"| {head} | {numbers} | {'yes' if found.fits else 'no'} |"


_COLUMNS = (
    *("configuration", "towers", "batch x frames", "precision", "recomputed"),
    *("weights", "moments", "gradients", "batches", "step", "GiB", "fits 24 GiB"),
)
HEADER = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|"


def documented_table(configs: Path) -> str:
    """Return the table of docs/training.md."""
    lines = [HEADER]
    for name, overrides in DOCUMENTED:
        config = read_config(configs / name, overrides)
        lines.append(row(name, config, plan(config)))
    return "\n".join(lines)


class _Allocations(TorchDispatchMode):
    """Counts the bytes of all tensors that operators make while it is active, until they are freed.

    Attributes:
        now: bytes allocated and not yet freed.
        most: the most so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size


def _layer_norm_as_on_a_gpu() -> Any:
    """Let layer normalisation take float32, as autocast does on a GPU, and not on a CPU."""
    layer_norm = F.layer_norm

    def wide(input: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return layer_norm(input.float(), *arguments, **options)

    return mock.patch.object(F, "layer_norm", wide)


def _fake_model(config: TrainConfig) -> tuple[VideoClassifier, HeadAdamW]:
    """Build the model and its optimiser on fake tensors of the CPU: autocast does nothing on the device "meta"."""
    section = replace(config.model, clip_pretrained=None, interpolate=None)
    with torch.device("meta"):
        model = build_model(section, config.data, ProcessGroup(0, 1, torch.device("meta")))
    with FakeTensorMode():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                setattr(module, name, nn.Parameter(fake, requires_grad=parameter.requires_grad))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
        model.head.train_class_features = torch.empty(CLASSES, model.clip.embed_dim)
        return model, build_optimizer(model, config.optim)


def _bytes(tensors: Iterable[Tensor | nn.Parameter]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
