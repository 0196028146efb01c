"""Builds what the shared options select: the model, class names, videos and loaders."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mote_fast.cli import options
from mote_fast.cli.download import download_shown
from mote_fast.cli.model_kinds import check_options, kind_of
from mote_fast.clip.clip_config import is_architecture
from mote_fast.clip.int8 import BACKENDS
from mote_fast.clip.prompts import PAPER_PROMPTS, Prompts, read_prompts
from mote_fast.clip.texts import check_labels
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.gpu.decoder_choice import choose_decoder
from mote_fast.data.items import VideoItem, read_labels, read_list, scan_folder
from mote_fast.data.loaders import make_loader
from mote_fast.data.loading.order import ALONE, Replica
from mote_fast.data.loading.video_loader import LoaderOptions, VideoLoader
from mote_fast.data.loading.view_frames import start_watched_reader
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.reading_choices import LoaderBackend
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, LabelError
from mote_fast.evaluation.protocol_names import DEFAULT_VIEWS, ProtocolName
from mote_fast.evaluation.splits import Split, read_split
from mote_fast.model.checkpoint import create_model, load
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.devices import named_device, why_unusable
from mote_fast.model.dtypes import resolve_dtype
from mote_fast.model.hub import pinned_name
from mote_fast.model.model_defaults import CLIP_SCHEMA, HUB_SCHEMA
from mote_fast.model.zoo import list_models
from mote_fast.runtime.distributed import ProcessGroup, is_first
from mote_fast.runtime.progress import Progress
from mote_fast.runtime.reading import expanded
from mote_fast.runtime.text import visible

# Videos of --calibrate that are read, evenly spaced; each costs two frames once, and each start reads its bytes.
CALIBRATED_VIDEOS = 64


def device_of(arguments: argparse.Namespace) -> str:
    """Return the selected device.

    Raises:
        ConfigError: PyTorch cannot use the device.
    """
    device = str(named_device(arguments.device, arguments.dtype))
    reason = why_unusable(device)
    if reason is not None:
        raise ConfigError(f"--device {device}: {reason}; give auto, cpu, cuda or cuda:N")
    return device


def settle_dtype(arguments: argparse.Namespace) -> None:
    """Replace a dtype that depends on the device or on a measurement by the one that it stands for.

    Raises:
        ConfigError: as ``device_of``.
    """
    if arguments.dtype in (options.BY_DEVICE, "auto"):
        device = torch.device(device_of(arguments))
        exact = arguments.dtype == options.BY_DEVICE and device.type == "cpu"
        arguments.dtype = "float32" if exact else str(resolve_dtype("auto", device)).removeprefix("torch.")


def model_of(arguments: argparse.Namespace) -> VideoClassifier:
    """Build or load the selected model, its experts merged for inference."""
    return whole_model(arguments).fold()


def whole_model(arguments: argparse.Namespace) -> VideoClassifier:
    """Build or load the selected model, its experts not merged."""
    check_options(arguments)
    settle_dtype(arguments)
    dtype = arguments.dtype
    # Commands that read lists have the processes of a loader instead.
    limit = getattr(arguments, "time_limit", None)
    calibrate = _calibration_of(arguments)
    prompts = prompts_of(arguments)
    loader: LoaderBackend = getattr(arguments, "loader", "auto")
    alone = hasattr(arguments, "views") and len(getattr(arguments, "videos", ())) == 1
    if limit is not None and alone and loader in ("auto", "cpu"):
        # The process starts while the model is built; several videos have processes of their own, and so have windows.
        start_watched_reader()
    # Calibration waits until the model knows how to decode.
    place: dict[str, Any] = {
        "device": device_of(arguments),
        "dtype": dtype if calibrate is None else "float32",
        "compile": options.COMPILE[getattr(arguments, "compile", "auto")],
    }
    if dtype in options.INT8:
        # The first run of a model exports it for half a minute; the log then says so.
        logging.getLogger("mote_fast.clip.int8").setLevel(logging.INFO)
    model = _fresh_model(arguments, place) if kind_of(arguments) == "architecture" else _trained_model(arguments, place)
    if model.caution is not None and is_first():
        print(f"note: {model.caution}", file=sys.stderr)
    model.decode_backend, model.loader = arguments.decode, loader
    if calibrate is not None:
        # Always in a watched process: commands that read lists have no limit of their own.
        model.decode_time_limit = limit or options.TIME_LIMIT
        model.quantize(calibrate, BACKENDS[dtype])
    model.decode_time_limit = limit
    model.prompts = prompts or model.prompts
    if arguments.no_cache:
        model.feature_cache = None
    if arguments.no_modulation:
        model.head.set_inference(modulation=False)
    return model


def _calibration_of(arguments: argparse.Namespace) -> list[str] | None:
    """Return the paths of ``--calibrate``; None without it.

    Raises:
        ConfigError: the model is not an int8 model.
        ListError: see ``some_videos``.
    """
    source = getattr(arguments, "calibrate", None)
    if source is None:
        return None
    if arguments.dtype not in options.INT8:
        raise ConfigError("--calibrate goes with --dtype int8")
    return [item.path for item in some_videos(source, "", CALIBRATED_VIDEOS)]


def _trained_model(arguments: argparse.Namespace, place: dict[str, Any]) -> VideoClassifier:
    name = arguments.checkpoint or arguments.model
    if name in list_models() and not Path(name).exists():
        download_shown(name, original=False)
    released = {"clip": arguments.clip, "interpolate": arguments.interpolate, "frames": arguments.frames}
    model = load(name, **released, **place)
    if "frames" in getattr(arguments, "given", ()):
        # A model folder records its own number.
        model.frames = arguments.frames
    return model


def _fresh_model(arguments: argparse.Namespace, place: dict[str, Any]) -> VideoClassifier:
    header = arguments.header or "mean"
    # A fixed seed: an untrained model has the same weights in every run.
    torch.manual_seed(0)
    return create_model(
        arguments.model,
        # Mean pooling has no attention heads.
        heads=1 if header == "mean" else None,
        frames=arguments.frames,
        clip_pretrained=arguments.clip_pretrained,
        header=header,
        **place,
    )


def prompts_of(arguments: argparse.Namespace) -> Prompts | None:
    """Read the files of ``options.add_prompts``; None if there are none, for the prompts that the model records.

    Raises:
        ConfigError: the weight is out of range.
        ListError: see ``read_prompts``.
    """
    prompts = read_prompts(arguments.templates, arguments.descriptions, arguments.description_weight)
    return None if arguments.templates is None and arguments.descriptions is None else prompts


def labels_of(arguments: argparse.Namespace) -> list[str] | None:
    """Collect the class names from the options; None if there are none, for those that the model records.

    Raises:
        LabelError: one of them is not UTF-8; or there are none, and only a model folder records its own.
        ListError: the file of class names is missing or malformed.
    """
    if "-" in (arguments.labels_file, arguments.labels):
        return _labels_of_input()
    if arguments.labels_file is not None:
        return read_labels(arguments.labels_file)
    if arguments.label_set is not None:
        return kinetics400_labels()
    if arguments.labels is None:
        # Before anything is fetched. What does not exist is named where it is looked for.
        name, place = arguments.checkpoint or arguments.model, expanded(arguments.checkpoint or arguments.model)
        known = (name in list_models() or name.startswith(CLIP_SCHEMA)) and not place.is_dir()
        if known or place.is_file() or (arguments.checkpoint is None and is_architecture(name)):
            raise _no_classes(arguments)
        return None
    labels = [name for part in arguments.labels.split(",") if (name := part.strip())]
    check_labels(labels)
    return labels


def _labels_of_input() -> list[str]:
    """Read class names from standard input, one a line."""
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise LabelError(f"standard input: its class names are not UTF-8 ({error.reason})") from error
    labels = [name for line in text.splitlines() if (name := line.strip())]
    if not labels:
        raise LabelError("standard input: holds no class names; write one a line")
    return labels


def classes_of(model: VideoClassifier, arguments: argparse.Namespace) -> Sequence[str]:
    """Return the class names that a model records.

    Raises:
        LabelError: it records none.
    """
    if model.classes is None:
        raise _no_classes(arguments)
    return model.classes


def _no_classes(arguments: argparse.Namespace) -> LabelError:
    return LabelError(
        f"{arguments.checkpoint or arguments.model} records no class names; give --labels, --labels-file or --label-set"
    )


def kinetics400_labels() -> list[str]:
    """Return the 400 class names of Kinetics-400, from torchvision's metadata."""
    from torchvision.models.video import R3D_18_Weights

    return list(R3D_18_Weights.KINETICS400_V1.meta["categories"])


def encode_labels(model: VideoClassifier, labels: Sequence[str]) -> Tensor:
    """Encode the label set once for all videos, [C, d], showing progress on a terminal."""
    with tqdm(
        total=model.prompts_for(labels).count(labels), unit="prompts", desc="labels", disable=None, delay=2
    ) as bar:
        return model.class_features(labels, progress=bar.update)


def split_of(arguments: argparse.Namespace, kind: str) -> Split:
    """Read the list that ``options.add_list`` added for a kind, such as "close_set".

    Raises:
        ConfigError: a list comes without class names.
        ListError: see ``read_split``.
    """
    source, labels, root = (getattr(arguments, kind + part) for part in ("", "_labels_file", "_root"))
    if labels is None and not Path(source).is_dir():
        raise ConfigError(f"{source}: a list needs its class names; give --{kind.replace('_', '-')}-labels-file")
    return read_split(source, labels, root)


def views_of(arguments: argparse.Namespace, protocol: ProtocolName) -> Views:
    """Return the views of ``--views``, or the protocol's default."""
    return Views.parse(arguments.views or DEFAULT_VIEWS[protocol])


def loader_of(arguments: argparse.Namespace, model: VideoClassifier) -> str:
    """Return what decodes the videos, as results record it; see ``VideoModel.loader`` and ``choose_decoder``."""
    alone = len(getattr(arguments, "videos", ())) == 1
    chosen: LoaderBackend = getattr(arguments, "loader", "cpu")
    return "cpu" if alone and chosen == "auto" else choose_decoder(chosen, model.device).name


def recipe_of(model: VideoClassifier, views: Views, **options: Any) -> ClipRecipe:
    """Return the recipe of the model's input clips, with further options of ``ClipRecipe``."""
    return ClipRecipe(frames=model.frames, preprocessing=model.clip.config.preprocessing, views=views, **options)


def facts_of(
    arguments: argparse.Namespace, model: VideoClassifier, views: Views, world: ProcessGroup
) -> dict[str, Any]:
    """Return what the results of evaluations record: the model, the views, the processes."""
    name = arguments.checkpoint or arguments.model
    recorded = arguments.templates is None and arguments.descriptions is None and model.prompts != PAPER_PROMPTS
    return {
        # A branch may lead elsewhere tomorrow.
        "checkpoint": pinned_name(name) if name.startswith(HUB_SCHEMA) and arguments.header is None else name,
        "caution": model.caution,
        "tuned_share": model.tuned_share,
        "views": f"{views.clips}x{views.crops}",
        "crops_along": arguments.crops_along,
        "loader": loader_of(arguments, model),
        "dtype": arguments.dtype,
        "image_tower": model.image_tower,
        "without_modulation": arguments.no_modulation,
        "templates": "the model's own" if recorded else arguments.templates,
        "descriptions": arguments.descriptions,
        "description_weight": arguments.description_weight if arguments.descriptions is not None else None,
        "processes": world.size,
    }


@contextlib.contextmanager
def open_loader(
    arguments: argparse.Namespace,
    model: VideoClassifier,
    items: Sequence[VideoItem],
    views: Views,
    *,
    replica: Replica = ALONE,
    title: str | None = None,
) -> Iterator[tuple[VideoLoader, Progress]]:
    """Open a loader of this process's share of the videos, and a progress bar (first process only) with ``title``."""
    recipe = recipe_of(
        model,
        views,
        dense=arguments.dense,
        pixel_aspect=arguments.pixel_aspect,
        crops_along=arguments.crops_along,
    )
    dataset = VideoDataset(items, recipe, decode_backend=arguments.decode, frame_template=arguments.frame_template)
    options = LoaderOptions(
        arguments.batch_size,
        training=False,
        replica=replica,
        workers=arguments.workers,
        device=model.device,
        dtype=model.clip.dtype,
        isolate=True,
    )
    loader = make_loader(dataset, options, arguments.loader)
    hidden = True if replica.rank > 0 else None
    share = len(range(replica.rank, len(items), replica.world_size))
    with (
        contextlib.closing(loader),
        tqdm(total=share, unit="videos", desc=title and visible(title), disable=hidden) as bar,
    ):
        yield loader, bar.update


def some_videos(source: str, root: str, count: int) -> list[VideoItem]:
    """Read a list or a folder of classes, and return ``count`` of its videos, evenly spaced.

    Lists are often sorted by class, so the first videos would cover only a few classes.

    Raises:
        ListError: the list is missing or malformed.
    """
    items = scan_folder(source)[0] if Path(source).is_dir() else read_list(source, root)
    count = min(count, len(items))
    return [items[at * len(items) // count] for at in range(count)]
