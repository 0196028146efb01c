"""Options that several commands share: which model, which labels, which videos."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch

from mote_fast.data.items import read_labels
from mote_fast.errors import ConfigError, LabelError
from mote_fast.model.checkpoint import DEFAULT_INTERPOLATION, SHIPPED, Dtype, create_model, load
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.model_config import DEFAULT_FRAMES
from mote_fast.runtime.environment import best_device

DTYPES: dict[str, Dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": "int8",
}
LABEL_SETS = ("k400",)

UNTRAINED_NOTE = (
    "note: these weights are untrained, so the ranking means nothing; "
    "give --checkpoint a released MoTE .pt file or a saved folder for real ones"
)


class CommandParser(argparse.ArgumentParser):
    """A parser that takes whole option names only, so that ``--labels`` never stands for ``--labels-file``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select a model and where it runs."""
    group = parser.add_argument_group("model")
    group.add_argument("--checkpoint", metavar="PATH", help="released MoTE .pt file, or a folder written by save()")
    group.add_argument("--clip", metavar="PATH|TAG", help="original CLIP of a released file: OpenAI's .pt or a tag")
    group.add_argument(
        "--interpolate",
        type=float,
        default=DEFAULT_INTERPOLATION,
        metavar="SHARE",
        help="share of the tuned image tower of a released file (default %(default)s)",
    )
    group.add_argument(
        "--model",
        default="tiny",
        metavar="NAME",
        help="without --checkpoint: tiny, trained on drawn videos and shipped with the package; or an architecture, "
        "with an untrained head (default %(default)s)",
    )
    group.add_argument(
        "--untrained", action="store_true", help="without --checkpoint: random weights for the tiny model too"
    )
    group.add_argument("--clip-pretrained", metavar="PATH|TAG", help="without --checkpoint: weights of the CLIP towers")
    group.add_argument(
        "--frames", type=int, default=DEFAULT_FRAMES, metavar="T", help="frames per view (default %(default)s)"
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default auto)")
    group.add_argument(
        "--dtype",
        choices=sorted(DTYPES),
        default="float32",
        help="of the parameters; int8 runs the image tower quantised, on the CPU (default float32)",
    )
    group.add_argument(
        "--decode",
        default="auto",
        metavar="BACKEND",
        help="video decoder: auto, torchcodec or pyav (default auto)",
    )


def add_video_argument(parser: argparse.ArgumentParser, views: str) -> None:
    """Add the videos and the views to judge them by."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video files")
    parser.add_argument("--views", default=views, help="clips x crops, such as 1x1, 3x1, 4x3 (default %(default)s)")


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """Add the three ways to give class names, one of them required."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--labels", metavar="A,B,C", help="class names, separated by commas")
    group.add_argument("--labels-file", metavar="FILE", help="class names, one a line, or a CSV with id and name")
    group.add_argument("--label-set", choices=LABEL_SETS, help="a known list of class names")


def is_untrained(arguments: argparse.Namespace) -> bool:
    """Whether the model that the options ask for has random weights in its head."""
    shipped = arguments.model in SHIPPED and arguments.clip_pretrained is None and not arguments.untrained
    return arguments.checkpoint is None and not shipped


def model_of(arguments: argparse.Namespace) -> VideoClassifier:
    """Build or load the model that the options ask for, its experts merged for inference."""
    return whole_model(arguments).fold()


def whole_model(arguments: argparse.Namespace) -> VideoClassifier:
    """Build or load the model that the options ask for, its experts apart."""
    device = arguments.device
    if device == "auto":
        device = "cpu" if arguments.dtype == "int8" else best_device()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device}: {str(error).splitlines()[0]}") from error
    dtype = DTYPES[arguments.dtype]
    if dtype == "int8":
        # The first run of a model exports it for half a minute, and should say so.
        logging.getLogger("mote_fast.clip.int8").setLevel(logging.INFO)
    if arguments.checkpoint is not None:
        if arguments.untrained:
            raise ConfigError("--untrained goes with --model; --checkpoint says which weights to take")
        model = load(
            arguments.checkpoint,
            clip=arguments.clip,
            interpolate=arguments.interpolate,
            frames=arguments.frames,
            device=device,
            dtype=dtype,
        )
    elif arguments.clip is not None:
        raise ConfigError("--clip goes with --checkpoint; for fresh towers use --clip-pretrained")
    elif not is_untrained(arguments):
        model = load(arguments.model, device=device, dtype=dtype)
        # A model folder records its own number.
        model.frames = arguments.frames
    else:
        # An untrained model is for trying things out: the same one every time.
        torch.manual_seed(0)
        model = create_model(
            arguments.model,
            frames=arguments.frames,
            clip_pretrained=arguments.clip_pretrained,
            device=device,
            dtype=dtype,
        )
    model.decode_backend = arguments.decode
    return model


def labels_of(arguments: argparse.Namespace) -> list[str]:
    """Collect the class names that the options give.

    Raises:
        LabelError: there are none.
        ListError: the file of them is missing or malformed.
    """
    if arguments.labels_file is not None:
        return read_labels(arguments.labels_file)
    if arguments.label_set is not None:
        return kinetics400_labels()
    labels = [name for part in arguments.labels.split(",") if (name := part.strip())]
    if not labels:
        raise LabelError("no labels: give at least one class name")
    return labels


def kinetics400_labels() -> list[str]:
    """Return the 400 class names of Kinetics-400, from torchvision's metadata."""
    from torchvision.models.video import R3D_18_Weights

    return list(R3D_18_Weights.KINETICS400_V1.meta["categories"])
