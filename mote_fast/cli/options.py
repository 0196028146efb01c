"""Options shared by several commands, each with one meaning."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

from mote_fast.cli.checked_number import Number
from mote_fast.data.reading_choices import DECODERS, FRAME_TEMPLATE, CropsAlong, LoaderBackend, PixelAspect
from mote_fast.errors import ConfigError
from mote_fast.evaluation.protocol_names import FULL_CLASS, RUNNING
from mote_fast.head.head_choices import Header
from mote_fast.model.model_defaults import DEFAULT_FRAMES, DEFAULT_INTERPOLATION, DEFAULT_MODEL

# Of a model's parameters; "int8" is a quantised image tower, "auto" the faster of float32 and bfloat16.
INT8 = ("int8", "int8-openvino")
FLOATS = ("bfloat16", "float16", "float32")
DTYPES = ("auto", *FLOATS, *INT8)
# Whether the image tower is compiled, as ``mote_fast.load`` takes it.
COMPILE: dict[str, bool | Literal["auto"]] = {"auto": "auto", "true": True, "false": False}
# The default of commands that evaluate, which ``inputs.settle_dtype`` resolves.
BY_DEVICE = "float32 on a CPU, auto on a GPU"

# Arguments of an option that takes several values and may be repeated.
SEVERAL: dict[str, Any] = {"action": "extend", "nargs": "+"}

# Seconds that decoding one video may take.
TIME_LIMIT = 60.0

# Name of the arguments KEY=VALUE, which may stand before and after options.
SETTINGS = "settings"

# A parser, or a group of its options.
Options = argparse._ActionsContainer


class CommandParser(argparse.ArgumentParser):
    """A parser that accepts full option names only, so that ``--labels`` never means ``--labels-file``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line; ``argparse`` alone refuses settings that follow an option that follows settings."""
    arguments, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(arguments, SETTINGS) or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        setattr(arguments, SETTINGS, [*getattr(arguments, SETTINGS), *rest])
    if getattr(arguments, "needs_videos", False) and not arguments.videos and arguments.list is None:
        raise ConfigError("give videos: files, folders or patterns, or --list FILE")
    return arguments


def set_run(parser: argparse.ArgumentParser, module: str, function: str = "run") -> None:
    """Let a command run a function of a module of ``mote_fast.cli``, which is imported then: models take seconds."""
    parser.set_defaults(run=partial(_call, module, function))


def _call(module: str, function: str, arguments: argparse.Namespace) -> int:
    return getattr(importlib.import_module(f"mote_fast.cli.{module}"), function)(arguments)


class _Given(argparse.Action):
    """Stores an option's value, and its name in ``given``, which tells it from a default."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option: object = None) -> None:
        """See ``argparse.Action``."""
        setattr(namespace, self.dest, values)
        namespace.given = {*getattr(namespace, "given", ()), self.dest}


def add_value(
    options: Options,
    flag: str,
    default: float | str,
    purpose: str,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    **bounds: float,
) -> None:
    """Add an option whose help states the default; ``bounds`` of numbers are those of ``Number``."""
    text = f"{purpose} (default %(default)s)"
    kind = str if isinstance(default, str) else Number(flag, isinstance(default, int), **bounds)
    options.add_argument(flag, help=text, metavar=metavar, choices=choices, action=_Given, type=kind, default=default)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add a training configuration and its overrides; ``parse`` lets those stand before and after options."""
    described = 'YAML of this project or of the official code, or a name that "mote-fast configs" lists'
    parser.add_argument("--config", "-cfg", required=True, metavar="FILE|NAME", help=described)
    parser.add_argument(SETTINGS, nargs="*", metavar="key=value", help="settings that override the file's")


def add_json(options: Options) -> None:
    """Add the choice between text for people and JSON for programs."""
    options.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def add_forms(parser: argparse.ArgumentParser, purpose: str, *, several: bool = False) -> None:
    """Add the form of results that come one by one, and the file that they go to, or ``several``."""
    group = parser.add_mutually_exclusive_group()
    for form, help_text in (
        ("json", "print one JSON document instead of text"),
        ("jsonl", "print a JSON object per video, as they come"),
        ("csv", "print CSV, as results come"),
    ):
        group.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=help_text)
    parser.add_argument("--output", metavar="FILE", help=purpose, **(SEVERAL if several else {}))


def add_score(options: Options) -> None:
    """Add the choice between the two scores that accuracies are computed from."""
    add_value(options, "--score", RUNNING, "score that accuracies are computed from", choices=(RUNNING, FULL_CLASS))


def add_released(options: Options) -> None:
    """Add the settings that a released checkpoint does not record, and those of the interpolation with its CLIP."""
    original = "CLIP that a checkpoint was tuned from: OpenAI's .pt or a tag (default openai; a folder records it)"
    options.add_argument("--clip", metavar="PATH|TAG", help=original)
    share = f"share of the tuned image tower, the rest is the CLIP's (default {DEFAULT_INTERPOLATION} for a file, "
    share += "1 for a folder, or with --clip what its training asks for)"
    kind = Number("--interpolate", whole=False, least=0, most=1)
    options.add_argument("--interpolate", type=kind, metavar="SHARE", help=share)
    add_value(options, "--frames", DEFAULT_FRAMES, "frames per view", "T", least=1)


def add_model(parser: argparse.ArgumentParser, *, encodes_labels: bool = False) -> None:
    """Add the options that select a model and where it runs; ``--no-cache`` where it encodes class names."""
    group = parser.add_argument_group("model")
    group.add_argument("--checkpoint", metavar="PATH", help="released MoTE .pt file, or a folder written by save()")
    add_released(group)
    named = 'without --checkpoint: a name of "mote-fast models", fetched once, an architecture of open_clip, or a path'
    add_value(group, "--model", DEFAULT_MODEL, named, "NAME")
    group.add_argument("--clip-pretrained", metavar="PATH|TAG", help="of an architecture: weights of its CLIP towers")
    header = "of an architecture: how frames are joined; only mean pooling (default) is of use untrained"
    group.add_argument("--header", choices=get_args(Header), help=header)
    add_value(group, "--device", "auto", "auto, cpu, cuda, cuda:1, ...")
    parameters = "dtype of the parameters; auto: bfloat16 where faster; int8: the image tower quantised, on the CPU"
    add_value(group, "--dtype", "float32", parameters, choices=DTYPES)
    compiled = "torch.compile for the image tower; auto: on a GPU, for work on many videos"
    add_value(group, "--compile", "auto", compiled, choices=tuple(COMPILE))
    purpose = "of int8: a list of videos, or a folder of them by class, to calibrate on (default: drawn videos)"
    group.add_argument("--calibrate", metavar="LIST", help=purpose)
    add_decode(group)
    parser.set_defaults(no_modulation=False, no_cache=False, templates=None, descriptions=None, description_weight=0.5)
    if encodes_labels:
        group.add_argument("--no-cache", action="store_true", help="neither read nor write class features on disk")


def choose_dtype_by_device(parser: argparse.ArgumentParser) -> None:
    """Let a command run in the dtype that suits the device, unless one is given."""
    parser.set_defaults(dtype=BY_DEVICE)


def add_decode(options: Options) -> None:
    """Add the choice of the video decoder."""
    add_value(options, "--decode", "auto", "video decoder", choices=DECODERS)


def add_loader(options: Options) -> None:
    """Add the choice between the CPU and the decoders of a GPU."""
    purpose = "what decodes: the CPU or a decoder of the GPU; auto: the fastest that gives the right frames"
    add_value(options, "--loader", "auto", purpose, choices=get_args(LoaderBackend))


def add_modulation(options: Options) -> None:
    """Add the choice of leaving temporal feature modulation out; it is the model's otherwise."""
    options.add_argument("--no-modulation", action="store_true", help="use the temporal features in full")


def add_templates(options: Options, name: str) -> None:
    """Add the templates around texts, which are called ``name``; after ``add_model``, which has the default."""
    options.add_argument("--templates", metavar="FILE", help=f"templates, one a line, {{}} in place of the {name}")


def add_prompts(parser: argparse.ArgumentParser) -> None:
    """Add the templates and descriptions that class features are made of; after ``add_model``, which has defaults."""
    group = parser.add_argument_group("prompts")
    add_templates(group, "class name")
    group.add_argument("--descriptions", metavar="FILE", help="JSON object, class name -> list of sentences about it")
    add_value(
        group,
        "--description-weight",
        0.5,
        "share of the descriptions in a class's feature, 0 to 1",
        "SHARE",
        least=0,
        most=1,
    )


def add_videos(parser: argparse.ArgumentParser, views: str | None, task: str = "decode") -> None:
    """Add the videos and their views, None where these are settled; and the time limit for a task, such as "decode"."""
    purpose = "video files, folders (with all below them), or patterns such as 'clips/*.mp4'"
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help=purpose)
    parser.add_argument("--list", metavar="FILE", help="further videos: a file with one path per line")
    parser.set_defaults(needs_videos=True)
    if views is not None:
        add_value(parser, "--views", views, "clips x crops, such as 1x1, 3x1, 4x3")
        add_framing(parser)
    add_time_limit(parser, task)


def add_rejection(parser: argparse.ArgumentParser, name: str, shown: str) -> None:
    """Add the options for what shows none of the labels; ``name`` is the first one's, ``shown`` its metavar."""
    group = parser.add_argument_group("none of these")
    only = group.add_mutually_exclusive_group()
    example = ", or the seconds of the video that show the background" if "START" in shown else ""
    only.add_argument(f"--{name}", metavar=shown, help=f"least level of the best label, auto for the model's{example}")
    only.add_argument("--background-words", metavar="A,B,C", help="texts of background, which compete with the labels")
    only.add_argument(
        "--background-video", metavar="FILE", help="a video of background, which competes with the labels"
    )
    parser.set_defaults(rejection=name)


def add_time_limit(options: Options, task: str = "decode", seconds: float = TIME_LIMIT) -> None:
    """Add the time limit for one video, which another process decodes."""
    add_value(options, "--time-limit", seconds, f"time limit to {task} one video", "SECONDS", above=0)


def add_framing(options: Options) -> None:
    """Add the shape of the pixels, and the side along which three crops lie."""
    purpose = "pixels that are not square: take them as square, or scale frames to their true shape"
    add_value(options, "--pixel-aspect", "ignore", purpose, choices=get_args(PixelAspect))
    purpose = "views of three crops lie along this side; along the width, those of a portrait video are equal"
    add_value(options, "--crops-along", "width", purpose, choices=get_args(CropsAlong))


def add_labels_file(options: Options, prefix: str = "", *, several: bool = False) -> None:
    """Add the file of class names; with ``several``, one file for each list is accepted too."""
    purpose = "class names, one per line, or a CSV with id and name"
    if several:
        purpose += "; one file, or one for each list"
    options.add_argument(f"--{prefix}labels-file", metavar="FILE", help=purpose, **(SEVERAL if several else {}))


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Add the three options for class names, one of which is needed by a model that records none."""
    group = parser.add_mutually_exclusive_group()
    purpose = "class names, separated by commas, or - for standard input, one a line (default: the model's own)"
    group.add_argument("--labels", metavar="A,B,C", help=purpose)
    add_labels_file(group)
    group.add_argument("--label-set", choices=("k400",), help="a known list of class names")


def add_list(
    options: Options, kind: str = "", *, labels: bool = True, several: bool = False, required: bool = True
) -> None:
    """Add a list of videos, its class names and its folder; a ``kind`` such as "close-set" prefixes the options."""
    prefix = f"{kind}-" if kind else ""
    purpose = "list of videos with labels, or a folder with a sub-folder for each class"
    many = SEVERAL if several else {}
    options.add_argument(f"--{kind or 'list'}", required=required, metavar="LIST", help=purpose, **many)
    if labels:
        add_labels_file(options, prefix, several=several)
    options.add_argument(f"--{prefix}root", default="", metavar="FOLDER", help="base folder of the list's paths")


def add_loading(parser: argparse.ArgumentParser, views: str) -> None:
    """Add the options for reading the videos of lists; ``views`` describes the default."""
    group = parser.add_argument_group("reading")
    group.add_argument("--views", metavar="CxC", help=f"clips x crops (default {views})")
    group.add_argument("--dense", action="store_true", help="sample frames densely, from a window of the video")
    add_value(group, "--batch-size", 8, "videos per batch and process", "N", least=1)
    add_value(group, "--workers", 4, "decoding worker processes, for each process; 0 reads nothing ahead", "N", least=0)
    add_loader(group)
    add_value(group, "--frame-template", FRAME_TEMPLATE, "image names in folders of extracted frames", "NAME")
    add_framing(group)


def add_workers(options: Options, task: str, time_limit: float) -> None:
    """Add the number of processes for a ``task``, such as "scan", and the time limit for one video."""
    add_value(options, "--workers", os.cpu_count() or 1, f"processes that {task}, one per core", "N", least=1)
    add_time_limit(options, task, time_limit)


def add_output(parser: argparse.ArgumentParser, content: str) -> None:
    """Add the output folder, and the permission to replace existing files."""
    parser.add_argument("--output", required=True, metavar="FOLDER", help=f"folder for {content}")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    add_json(parser)
