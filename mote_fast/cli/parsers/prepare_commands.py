"""Arguments of prepare and its steps."""

from __future__ import annotations

import argparse
from typing import Any

from mote_fast.cli import options
from mote_fast.cli.checked_number import Number
from mote_fast.prepare.prepare_settings import BASE_VAL, PAPER_SHOTS, PRESETS, SEEDS, SHOTS, Encoding, ScanOptions

_KINETICS = "CSV files with label, youtube_id, time_start, time_end, split"

# Data sets with annotations, and the files that they need.
PUBLISHED = {
    "ucf101": "classInd.txt, trainlist01..03.txt, testlist01..03.txt",
    "hmdb51": "CLASS_test_split1..3.txt",
    "k400": _KINETICS,
    "k600": _KINETICS,
    "k700": _KINETICS,
    "ssv2": "labels.json, train.json, validation.json",
}
ACTIVITYNET = "activity_net.v1-3.min.json"


def add_commands(commands: Any) -> None:
    """Register the command and its steps."""
    described = "Make lists and labels from an archive or a folder per class, few-shot lists, and copies."
    parser = commands.add_parser("prepare", help="make lists and labels of a data set", description=described)
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, files in PUBLISHED.items():
        step = steps.add_parser(name, help=f"from {files}", description=f"Lists of {name} from {files}.")
        purpose = f"{files}: the files, or folders with them"
        step.add_argument("--annotations", nargs="+", required=True, metavar="PATH", help=purpose)
        _add_data_set(step)
    described = "Lists of ActivityNet's annotated segments, and the clips that they name."
    step = steps.add_parser("activitynet", help=f"from {ACTIVITYNET}", description=described)
    _add_cutting(step)
    _add_data_set(step)
    step = steps.add_parser("folder", help="from a folder per class", description="Lists from a folder per class.")
    _add_split(step, "there are no train and val folders")
    _add_data_set(step)
    described = """Lists from a CSV with the columns path and label, a class name; a column split may say which rows are
    for "train" and which for "val"."""
    step = steps.add_parser("csv", help="from a CSV with path and label", description=described)
    step.add_argument("--annotations", required=True, metavar="FILE", help="CSV whose paths are relative to --root")
    _add_split(step, "no column says it")
    _add_data_set(step)
    _add_fewshot(steps)
    _add_base2novel(steps)
    _add_reencode(steps)
    _add_shards(steps)
    _add_features(steps)


def _add_split(step: argparse.ArgumentParser, where: str) -> None:
    share = f"share of each class for the validation list, where {where} (default 0.1; of small classes up to 10 "
    share += "videos, at most 0.25)"
    kind = Number("--val-share", whole=False, least=0, below=1)
    step.add_argument("--val-share", type=kind, metavar="SHARE", help=share)
    options.add_value(step, "--seed", 0, "seed of that split", "N")


def _add_data_set(step: argparse.ArgumentParser) -> None:
    defaults = ScanOptions()
    step.add_argument("--root", required=True, metavar="FOLDER", help="folder of the videos and base of list paths")
    options.add_output(step, "lists, labels and report")
    group = step.add_argument_group("checks")
    group.add_argument(
        "--scan", action="store_true", help="decode frames of every video and find identical files; can be resumed"
    )
    group.add_argument(
        "--drop-bad", action="store_true", help="omit missing, unreadable and too short videos from the lists"
    )
    options.add_value(
        group, "--scan-frames", defaults.frames, "frames of each video to decode, 0 for none", "N", least=0
    )
    options.add_value(
        group, "--min-frames", defaults.min_frames, "a video with fewer frames is too short", "N", least=1
    )
    options.add_workers(group, "scan", defaults.time_limit)
    options.set_run(step, "prepare")


def _add_cutting(step: argparse.ArgumentParser) -> None:
    purpose = f"{ACTIVITYNET}: the file, or a folder with it"
    step.add_argument("--annotations", nargs="+", required=True, metavar="PATH", help=purpose)
    group = step.add_argument_group("cutting")
    purpose = "cut the segments out of these videos into --root first; without it, --root holds the clips already"
    group.add_argument("--cut-from", metavar="FOLDER", help=purpose)
    options.add_value(group, "--cut-time-limit", 600.0, "time limit to cut one clip", "SECONDS", above=0)
    _add_encoding(group)


def _add_encoding(group: options.Options) -> None:
    default = Encoding()
    options.add_value(
        group, "--short-side", default.short_side, "maximum; videos are never scaled up", "PIXELS", least=2
    )
    options.add_value(group, "--key-interval", default.key_interval, "distance between key frames", "FRAMES", least=1)
    options.add_value(group, "--crf", default.crf, "x264's quality, lower is better", "N", least=0, most=51)
    options.add_value(group, "--preset", default.preset, "x264's effort", choices=PRESETS)


def _add_fewshot(steps: Any) -> None:
    described = "Write training lists of a few videos per class, repeated to the full set's size."
    step = steps.add_parser("fewshot", help="few-shot training lists", description=described)
    step.add_argument("--list", required=True, metavar="FILE", help="full training list")
    default = " ".join(map(str, PAPER_SHOTS))
    step.add_argument(
        "--shots",
        type=Number("--shots", least=1),
        nargs="+",
        metavar="K",
        help=f"videos per class (default {default}, as far as each class has them)",
    )
    options.add_value(step, "--seed", 0, "seed of the draw", "N")
    step.add_argument(
        "--length",
        type=_length,
        default="full",
        metavar="N|full|once",
        help="entries of each list: a number, as many as the full list has, or each video once (default %(default)s)",
    )
    options.add_output(step, "the lists")
    options.set_run(step, "prepare_fewshot")


def _length(text: str) -> str:
    return text if text in ("full", "once") else str(Number("--length", least=1)(text))


def _add_base2novel(steps: Any) -> None:
    described = "Write lists of base and novel classes, split here or as published by ViFi-CLIP."
    step = steps.add_parser("base2novel", help="lists of the base-to-novel protocol", description=described)
    own = step.add_argument_group("split the classes of a data set")
    own.add_argument("--list", metavar="FILE", help="full training list")
    own.add_argument("--val-list", metavar="FILE", help="full validation list")
    options.add_labels_file(own)
    options.add_value(own, "--shots", SHOTS, "training videos of each base class", "K", least=1)
    published = step.add_argument_group("or find the videos of published lists")
    published.add_argument("--published", metavar="FOLDER", help=f"folder of {BASE_VAL} and the other lists")
    published.add_argument("--base-labels", metavar="FILE", help="base class names")
    published.add_argument("--novel-labels", metavar="FILE", help="novel class names")
    published.add_argument("--root", metavar="FOLDER", help="folder of the videos, in any sub-folders")
    default = " ".join(map(str, SEEDS))
    step.add_argument(
        "--seeds",
        type=Number("--seeds"),
        nargs="+",
        default=SEEDS,
        metavar="N",
        help=f"training lists (default {default})",
    )
    options.add_output(step, "lists and class names")
    options.set_run(step, "prepare_base2novel")


def _add_reencode(steps: Any) -> None:
    described = "Make copies of videos that decode several times faster; originals stay unchanged."
    step = steps.add_parser("reencode", help="rewrite videos so that they decode fast", description=described)
    step.add_argument("source", metavar="SOURCE", help="folder of the videos; only read")
    step.add_argument("target", metavar="TARGET", help="folder for the copies, with the same sub-folders")
    listed = "re-encode only the videos of these lists, and write lists of the copies into TARGET"
    step.add_argument("--list", default=[], metavar="LIST", help=listed, **options.SEVERAL)
    _add_encoding(step)
    step.add_argument(
        "--keep-intact-prefix", action="store_true", help="keep the frames of a damaged video before the damage"
    )
    options.add_workers(step, "re-encode", 600.0)
    options.add_json(step)
    options.set_run(step, "prepare_reencode")


def _add_shards(steps: Any) -> None:
    described = "Write the videos of a list into tar files for sequential reading."
    step = steps.add_parser("shards", help="write videos into WebDataset tar shards", description=described)
    step.add_argument("list", metavar="LIST", help="list of videos: 'PATH LABEL' per line, or a CSV")
    step.add_argument("folder", metavar="OUT", help="folder for the shards and their index")
    step.add_argument("--root", default="", metavar="FOLDER", help="base folder of the list's paths")
    options.add_value(step, "--shard-size", "1GB", "maximum total size of the videos in a shard", "SIZE")
    step.add_argument(
        "--samples", type=Number("--samples", least=1), metavar="N", help="maximum number of videos in a shard"
    )
    options.add_value(step, "--seed", 0, "seed of the order", "N")
    options.add_labels_file(step)
    options.add_workers(step, "check", 60.0)
    options.add_json(step)
    options.set_run(step, "prepare_shards")


def _add_features(steps: Any) -> None:
    described = """Encode the videos of a training configuration once. Training on what it writes, with frozen towers,
    opens no video and runs no image tower. An interrupted call is continued by the same one."""
    step = steps.add_parser(
        "features", help="encode videos once, for training with frozen towers", description=described
    )
    options.add_config(step)
    step.add_argument("--output", required=True, metavar="FOLDER", help="folder for the features")
    options.add_json(step)
    options.set_run(step, "prepare_features")
