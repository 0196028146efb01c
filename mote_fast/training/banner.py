"""The first lines of a run's log: hardware, versions, model and data."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mote_fast.data.decoding.decode import available_backends
from mote_fast.data.gpu.decoder_choice import choose_decoder
from mote_fast.model.classifier import VideoClassifier
from mote_fast.ops.implementations import implementation_for
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.training.build import Loaders
from mote_fast.training.config.train_config import TrainConfig
from mote_fast.version import __version__


def first_lines(config: TrainConfig, world: ProcessGroup, model: VideoClassifier, loaders: Loaders) -> Iterator[str]:
    """Yield the lines that open a run's log."""
    data, optim = config.data, config.optim
    on = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
    processes = f"{world.size} process{'es' if world.size > 1 else ''}"
    yield f"mote_fast {__version__}, torch {torch.__version__}: {processes} on {on}, {optim.precision}"

    decoder = data.decode
    if decoder == "auto":
        decoder = next(name for name, problem in available_backends().items() if problem is None)
    loader = type(loaders.training).__name__
    if loader == "GpuLoader":
        loader += f" by {choose_decoder(data.backend, world.device)}"
    experts = implementation_for(world.device, torch.float32)
    yield f"backends: loader {loader}, decode {decoder}, attention {model.clip.attention}, experts {experts}"

    head = model.head
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    shape = (
        f"{head.config.header} head of {head.layers} layers x {head.experts} experts" if head.layers else "mean pooling"
    )
    name = config.model.checkpoint or config.model.arch
    yield f"model: {name}, {shape}; {millions(total)} parameters, {millions(trained)} trained"

    clips = data.batch_size * world.size * optim.accumulation
    size = data.size or model.clip.image_size
    yield (
        f"data: {loaders.training_videos} videos to train on, {loaders.validation_videos} to validate; "
        f"{data.frames} frames of {size} pixels; effective batch {clips} = {data.batch_size} x {world.size} x "
        f"{optim.accumulation} (batch, processes, accumulation)"
    )


def millions(count: int) -> str:
    """Format a number of parameters: ``149.6M``."""
    return f"{count / 1e6:.2f}M" if count < 1e7 else f"{count / 1e6:.1f}M"
