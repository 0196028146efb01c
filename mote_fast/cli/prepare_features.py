"""``mote-fast prepare features``: encodes the videos of a training configuration once, for training with frozen towers.

Training on the written features opens no video and runs no image tower. An interrupted call is continued by the same
one.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from tqdm import tqdm

from mote_fast.cli import outputs
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.feature_files import FeatureIndex
from mote_fast.data.items import read_list
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.errors import ConfigError
from mote_fast.model.classifier import VideoClassifier
from mote_fast.prepare.write_features import write_features
from mote_fast.runtime.distributed import ProcessGroup, joined
from mote_fast.training.build import Split, build_model, feature_source, recipe_of
from mote_fast.training.config.train_config import TrainConfig, load_config
from mote_fast.training.step import Arithmetic

# What features stand for; training on them needs the same.
_FROZEN = ("model.train_clip=false", "data.augmentation=none")


def run(arguments: argparse.Namespace) -> int:
    """Write the features of both lists. Returns 0, or 3 if videos could not be read, which the index names."""
    config = load_config(arguments.config, [*arguments.settings, *_FROZEN, "data.features=null"])
    output = Path(arguments.output)
    with joined(config.run.device) as world:
        if world.size > 1:
            raise ConfigError("prepare features runs as one process; start it without torchrun")
        # As in training: without weights of CLIP, the seed decides the image tower.
        torch.manual_seed(config.run.seed)
        model = build_model(config.model, config.data, world)
        splits: Sequence[Split] = [split for split in get_args(Split) if split == "train" or config.data.val_list]
        written = {split: _write(config, model, output / split, split, world) for split in splits}
    lines = [f"{output / split}: features of {index.videos} videos" for split, index in written.items()]
    failures = [failure for index in written.values() for failure in index.failures]
    document = {split: {"videos": index.videos, "failed": len(index.failures)} for split, index in written.items()}
    outputs.show(arguments, document, lines)
    if not arguments.json:
        outputs.write(f"\nNext:\n  {_training_command(arguments)}")
    return outputs.report_unread(failures)


def _write(
    config: TrainConfig, model: VideoClassifier, folder: Path, split: Split, world: ProcessGroup
) -> FeatureIndex:
    data, training = config.data, split == "train"
    listed = data.train_list if training else data.val_list or ""
    if Path(listed).is_dir():
        raise ConfigError(f"data.{split}_list: features are made of lists of files, but {listed} is a folder of shards")
    items = read_list(listed, data.train_root if training else data.val_root)
    dataset = VideoDataset(
        items, recipe_of(data, model, split), decode_backend=data.decode, frame_template=data.frame_template
    )
    arithmetic = Arithmetic(config.optim.precision, world.device)

    def encode(pixels: Tensor) -> Tensor:
        # Training runs the tower in its own precision, validation in float32.
        with arithmetic.autocast() if training else torch.autocast(world.device.type, enabled=False):
            return model.clip.encode_frames(pixels)

    batch = data.batch_size if training else data.val_batch_size or data.batch_size
    loading = LoaderOptions(batch, False, workers=data.workers, device=world.device, time_limit=data.time_limit)
    with tqdm(total=len(items), desc=split, unit="video", disable=None) as bar:
        source = feature_source(config, model, items, split)
        return write_features(
            model, dataset, folder, source, loading, encode=encode, backend=data.backend, progress=bar.update
        )


def _training_command(arguments: argparse.Namespace) -> str:
    """The command that trains on the features."""
    words = ["mote-fast", "train", "--config", arguments.config, *arguments.settings, *_FROZEN]
    return shlex.join([*words, f"data.features={arguments.output}"])
