"""``mote-fast prepare``: makes lists and labels from an archive or a folder per class, few-shot lists, and copies."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mote_fast.cli import (
    options,
    outputs,
    prepare_activitynet,
    prepare_base2novel,
    prepare_fewshot,
    prepare_reencode,
    prepare_shards,
)
from mote_fast.prepare.folder import read_folder
from mote_fast.prepare.hmdb51 import read_hmdb51
from mote_fast.prepare.kinetics import read_k400, read_k600, read_k700
from mote_fast.prepare.lists import DataSet
from mote_fast.prepare.scan import ScanOptions
from mote_fast.prepare.ssv2 import read_ssv2
from mote_fast.prepare.ucf101 import read_ucf101
from mote_fast.prepare.write_data_set import REPORT_FILES, write_data_set

# Each module adds one step with add_command(steps).
STEPS = (prepare_fewshot, prepare_base2novel, prepare_reencode, prepare_shards)

# Data sets with annotations: their reader, and the files that it needs.
PUBLISHED: dict[str, tuple[Callable[[Sequence[Path], Path], DataSet], str]] = {
    "ucf101": (read_ucf101, "classInd.txt, trainlist01..03.txt, testlist01..03.txt"),
    "hmdb51": (read_hmdb51, "CLASS_test_split1..3.txt"),
    "k400": (read_k400, "CSV files with label, youtube_id, time_start, time_end, split"),
    "k600": (read_k600, "CSV files with label, youtube_id, time_start, time_end, split"),
    "k700": (read_k700, "CSV files with label, youtube_id, time_start, time_end, split"),
    "ssv2": (read_ssv2, "labels.json, train.json, validation.json"),
}


def add_command(commands: Any) -> None:
    """Register the command and its steps."""
    parser = commands.add_parser("prepare", help="make lists and labels of a data set", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, (_, files) in PUBLISHED.items():
        step = steps.add_parser(name, help=f"from {files}", description=f"Lists of {name} from {files}.")
        step.add_argument(
            "--annotations", nargs="+", required=True, metavar="PATH", help=f"{files}: the files, or folders with them"
        )
        _add_data_set_options(step)
        step.set_defaults(read=_read_published)
    name, files = "activitynet", prepare_activitynet.FILES
    step = steps.add_parser(name, help=f"from {files}", description=prepare_activitynet.__doc__)
    prepare_activitynet.add_options(step)
    _add_data_set_options(step)
    step.set_defaults(read=prepare_activitynet.read)
    step = steps.add_parser("folder", help="from a folder per class", description="Lists from a folder per class.")
    share = "share of each class for the validation list, where there are no train and val folders"
    options.add_value(step, "--val-share", 0.1, share, "SHARE")
    options.add_value(step, "--seed", 0, "seed of that split", "N")
    _add_data_set_options(step)
    step.set_defaults(read=_read_folder)
    for module in STEPS:
        module.add_command(steps)


def run(arguments: argparse.Namespace) -> int:
    """Prepare a data set. Returns 0: bad videos are reported, and are not a failure."""
    scan = ScanOptions(arguments.workers, arguments.scan_frames, arguments.min_frames, arguments.time_limit)
    root, output = Path(arguments.root), Path(arguments.output)
    data_set: DataSet = arguments.read(arguments, root)
    scanned = scan if arguments.scan else None
    report = write_data_set(data_set, root, output, scan=scanned, drop_bad=arguments.drop_bad, force=arguments.force)
    outputs.show(arguments, report, [(output / REPORT_FILES[1]).read_text(encoding="utf-8").rstrip()])
    if arguments.step == "folder" and not arguments.json:
        outputs.write(f"\nNext:\n  {_training_command(root, output)}")
    return 0


def _training_command(root: Path, output: Path) -> str:
    """The command that trains on the lists of a folder."""
    settings = {"train_list": output / "trainlist.txt", "train_root": root, "labels": output / "labels.csv"}
    settings["flip_labels"] = output / "flip_labels.csv"
    # A class of one video leaves none to validate on.
    if (validation := output / "vallist.txt").exists():
        settings |= {"val_list": validation, "val_root": root}
    words = ["mote-fast", "train", "--config", "folder", *(f"data.{key}={path}" for key, path in settings.items())]
    return shlex.join([*words, f"run.output={Path('runs', output.name)}"])


def _read_published(arguments: argparse.Namespace, root: Path) -> DataSet:
    read, _ = PUBLISHED[arguments.step]
    return read([Path(place) for place in arguments.annotations], root)


def _read_folder(arguments: argparse.Namespace, root: Path) -> DataSet:
    return read_folder(root, val_share=arguments.val_share, seed=arguments.seed)


def _add_data_set_options(parser: argparse.ArgumentParser) -> None:
    defaults = ScanOptions()
    parser.add_argument("--root", required=True, metavar="FOLDER", help="folder of the videos and base of list paths")
    options.add_output(parser, "lists, labels and report")
    group = parser.add_argument_group("checks")
    group.add_argument(
        "--scan", action="store_true", help="decode frames of every video and find identical files; can be resumed"
    )
    group.add_argument(
        "--drop-bad", action="store_true", help="omit missing, unreadable and too short videos from the lists"
    )
    options.add_value(group, "--scan-frames", defaults.frames, "frames of each video to decode, 0 for none", "N")
    options.add_value(group, "--min-frames", defaults.min_frames, "a video with fewer frames is too short", "N")
    options.add_workers(group, "scan", defaults.time_limit)
    parser.set_defaults(run=run)
