"""Build the model, its optimiser and the loaders from a configuration."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from mote_fast.clip.prompts import read_prompts
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.feature_files import StoredFeatures, source_of
from mote_fast.data.feature_loader import FeatureLoader
from mote_fast.data.flip_labels import mirror_labels, one_sided, read_flip_labels
from mote_fast.data.items import VideoItem, check_items, check_one_label, read_list
from mote_fast.data.loaders import make_loader
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.order import Replica
from mote_fast.data.loading.video_loader import LoaderOptions, VideoLoader
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.shards.shard_loader import ShardLoader
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, ListError
from mote_fast.evaluation.average_precision import positives_of
from mote_fast.head.head_config import HeadOptions
from mote_fast.model.checkpoint import create_model, load
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.zoo import find_weights
from mote_fast.runtime.device_copy import to_device
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.weights import config_text
from mote_fast.training.config.sections import AUTOCAST_DTYPES, DataConfig, ModelSection, OptimConfig
from mote_fast.training.config.train_config import TrainConfig
from mote_fast.training.optim import HeadAdamW, head_optimizer

log = logging.getLogger(__name__)

# Folder of reports on unreadable videos, one file per list and process.
FAULT_FOLDER = "faults"

# The training or the validation list; also the names of their folders of features.
Split = Literal["train", "val"]


class Loaders(NamedTuple):
    """The loaders of a run; ``validation`` is None without a validation list.

    ``training_items`` and ``validation_items`` are the lists for binary cross-entropy, None for cross-entropy.

    ``DataPosition`` explains the streams and the content.
    """

    training: VideoLoader
    validation: VideoLoader | None
    training_videos: int
    validation_videos: int
    training_streams: int
    training_content: str
    training_items: Sequence[VideoItem] | None = None
    validation_items: Sequence[VideoItem] | None = None

    def with_targets(self, batches: Iterator[Batch], classes: int) -> Iterator[Batch]:
        """Yield the batches with the targets of binary cross-entropy, float32 [B, C]; unchanged for cross-entropy."""
        items = self.training_items
        if items is None:
            return batches
        return (replace(batch, labels=_targets(batch, items, classes)) for batch in batches)

    def close(self) -> None:
        """Stop the workers of both."""
        self.training.close()
        if self.validation is not None:
            self.validation.close()


def build_model(model: ModelSection, data: DataConfig, world: ProcessGroup) -> VideoClassifier:
    """Build the model that a run starts from, on its device.

    A checkpoint has its own head, whose sizes then apply; otherwise the head is fresh, drawn from PyTorch's generator.

    Raises:
        ConfigError: sizes contradict each other.
        CheckpointError: weights cannot be read or do not fit.
    """
    if model.checkpoint is not None:
        weights = find_weights(model.checkpoint)
        is_folder = weights.is_dir()
        # A released file takes its text tower from the given CLIP; a folder is complete.
        built = load(
            weights,
            clip=None if is_folder else model.clip_pretrained,
            interpolate=1.0,
            activation=None if is_folder else model.activation,
            device=world.device,
        )
        built.frames = data.frames
    else:
        built = create_model(
            model.arch,
            experts=model.experts,
            layers=model.layers,
            heads=model.heads,
            frames=data.frames,
            clip_pretrained=model.clip_pretrained,
            activation=model.activation,
            preprocessing=model.preprocessing,
            device=world.device,
            **{option.name: getattr(model, option.name) for option in fields(HeadOptions)},
        )
    if model.interpolate is not None:
        if built.original is None:
            raise ConfigError(
                f"model.interpolate is {model.interpolate:g}, but {model.checkpoint or model.arch} records no original "
                "CLIP to interpolate with; leave it out"
            )
        built.original = replace(built.original, share=model.interpolate)
    built.decode_backend = data.decode
    built.prompts = read_prompts(data.templates, data.descriptions, data.description_weight)
    if data.size is not None and built.clip.is_plain_vision_tower and built.clip.image_size != data.size:
        raise ConfigError(
            f"data.size is {data.size}, but the image tower of {model.checkpoint or model.arch} takes "
            f"{built.clip.image_size}; leave it out"
        )
    built.requires_grad_(False)
    built.head.requires_grad_(True)
    if model.train_clip:
        built.clip.model.visual.requires_grad_(True)
        built.clip.model.logit_scale.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in built.parameters()):
        raise ConfigError("model.header=mean with model.train_clip=false leaves nothing to train")
    # The towers stay in evaluation mode: CLIP has no dropout, and other towers' running statistics must not change.
    return built.eval()


def store_class_features(model: VideoClassifier, names: list[str], world: ProcessGroup) -> None:
    """Encode the training classes with the frozen text tower, once, and store their names and features in the model.

    The first process encodes them (or reads the cache) and sends them to the others.

    Raises:
        CheckpointError: names and prompts together are longer than a model folder's configuration may be.
    """
    model.classes = names
    # A run that could not write its models should end here.
    config_text(model.config.to_json(), "the model")
    features = torch.zeros(len(names), model.clip.embed_dim, device=world.device)
    # Here, so that descriptions of other classes end every process.
    total = model.prompts.count(names)
    if world.leads:
        # tqdm draws on a terminal only.
        with tqdm(total=total, desc="class features", unit="prompt", disable=None) as bar:
            features = model.class_features(names, progress=bar.update)
    world.share([features])
    model.head.set_train_class_features(features)


def build_optimizer(model: VideoClassifier, optim: OptimConfig) -> HeadAdamW:
    """Return the optimiser: the head's group, then CLIP's with its own rate (docs/method.md, Optimisation)."""
    clip = [parameter for parameter in model.clip.parameters() if parameter.requires_grad]
    groups = [{"params": clip, "lr": optim.lr * optim.clip_ratio}] if clip else []
    return head_optimizer(
        model.head, optim.lr, optim.weight_decay, betas=optim.betas, eps=optim.eps, extra_groups=groups
    )


def build_loaders(config: TrainConfig, model: VideoClassifier, names: list[str], world: ProcessGroup) -> Loaders:
    """Read the lists and open the loaders of this process.

    Raises:
        ListError: a list is missing or malformed, or a label has no class name.
    """
    data = config.data
    _warn_of_sides(data, names)
    loader, videos, content, items = _loader(config, model, names, world, "train")
    streams = world.size * max(1, data.workers) if isinstance(loader, ShardLoader) else 0
    if data.val_list is None:
        return Loaders(loader, None, videos, 0, streams, content, items)
    val_loader, val_videos, _, val_items = _loader(config, model, names, world, "val")
    return Loaders(loader, val_loader, videos, val_videos, streams, content, items, val_items)


def recipe_of(data: DataConfig, model: VideoClassifier, split: Split) -> ClipRecipe:
    """Return how the videos of the training or validation list become clips.

    Raises:
        ListError: the file of mirrored labels is missing or malformed.
    """
    preprocessing = model.clip.config.preprocessing
    if data.size is not None:
        preprocessing = replace(preprocessing, size=data.size)
    plain = ClipRecipe(
        frames=data.frames,
        preprocessing=preprocessing,
        dense=data.dense,
        pixel_aspect=data.pixel_aspect,
        crops_along=data.crops_along,
    )
    if split == "val":
        return replace(plain, views=Views.parse(data.views))
    flips = read_flip_labels(data.flip_labels) if data.flip_labels is not None else {}
    return replace(plain, augmentation=data.augmentation, flip_labels=flips)


def feature_source(
    config: TrainConfig, model: VideoClassifier, items: Sequence[VideoItem], split: Split
) -> dict[str, Any]:
    """Return what the frame features of a list are made of in this run, see ``source_of``."""
    data = config.data
    return source_of(
        recipe_of(data, model, split),
        items,
        data.train_root if split == "train" else data.val_root,
        weights=model.clip.image_fingerprint(),
        # Validation runs in float32.
        precision=config.optim.precision if split == "train" else "fp32",
    )


def _warn_of_sides(data: DataConfig, names: Sequence[str]) -> None:
    sided = [*mirror_labels(names), *one_sided(names)]
    if data.augmentation == "kinetics" and data.flip_labels is None and sided:
        log.warning(
            "%s: half of the videos are mirrored, also of classes that name a side, such as %r; give data.flip_labels, "
            "which `mote-fast prepare folder` writes, or data.augmentation=none",
            data.train_list,
            names[min(sided)],
        )


def _loader(
    config: TrainConfig, model: VideoClassifier, names: list[str], world: ProcessGroup, split: Split
) -> tuple[VideoLoader, int, str, Sequence[VideoItem] | None]:
    """Open the loader of one list; also return its number of videos, the digest of its content, and its ``items``."""
    data = config.data
    recipe, training = recipe_of(data, model, split), split == "train"
    source = data.train_list if training else data.val_list or ""
    options = LoaderOptions(
        batch_size=data.batch_size if training else data.val_batch_size or data.batch_size,
        training=training,
        replica=Replica(world.rank, world.size),
        workers=data.workers,
        device=world.device,
        time_limit=data.time_limit,
        fault_file=Path(config.run.output) / FAULT_FOLDER / f"{split}-{world.rank}.jsonl",
        dtype=_pixel_dtype(config, world.device) if training else torch.float32,
    )
    if Path(source).is_dir():
        if data.backend not in ("auto", "cpu"):
            raise ConfigError(
                f"data.backend={data.backend} reads no tar shards, but data.{split}_list is {source}; use auto"
            )
        if data.features is not None:
            raise ConfigError(f"data.features needs lists of files, but data.{split}_list is the shards {source}")
        if config.method.loss == "bce":
            raise ConfigError("method.loss=bce needs a list, not tar shards, which hold one label a video")
        shards = ShardLoader(
            source, recipe, options, classes=len(names), seed=config.run.seed, decode_backend=data.decode
        )
        if shards.index.labels and list(shards.index.labels) != names:
            raise ListError(f"{source}: was written for other class names than {data.labels} has")
        rows = [(shard.name, shard.size, *shard.indices) for shard in shards.index.shards]
        return shards, shards.index.samples, _digest(rows), None
    root = data.train_root if training else data.val_root
    items = read_list(source, root)
    check_items(items, len(names), source)
    if config.method.loss == "ce":
        check_one_label(items, source, "set method.loss=bce")
    dataset = VideoDataset(
        items, recipe, seed=config.run.seed, decode_backend=data.decode, frame_template=data.frame_template
    )
    # Without the root, so that the videos may move to another disk.
    below = os.path.join(root, "") if root else ""
    rows = [(item.path.removeprefix(below), item.label, item.num_frames, *item.others) for item in items]
    kept = items if config.method.loss == "bce" else None
    if data.features is not None:
        stored = StoredFeatures(Path(data.features) / split, feature_source(config, model, items, split))
        return FeatureLoader(dataset, stored, options), len(items), _digest(rows), kept
    return make_loader(dataset, options, data.backend), len(items), _digest(rows), kept


def _pixel_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The dtype of training's pixels: on a GPU that which autocast would round them to, in half of the memory."""
    return AUTOCAST_DTYPES[config.optim.precision] or torch.float32 if device.type == "cuda" else torch.float32


def _targets(batch: Batch, items: Sequence[VideoItem], classes: int) -> Tensor:
    listed = [items[index] for index in batch.indices.tolist()]
    return to_device(positives_of(listed, classes).to(torch.float32), batch.labels.device)


def _digest(rows: Iterable[tuple[str | int, ...]]) -> str:
    """SHA-256 of rows of texts and numbers, in hexadecimal."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(to_json(row).encode() + b"\n")
    return digest.hexdigest()
