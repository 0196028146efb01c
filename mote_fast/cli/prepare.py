"""``mote-fast prepare``: lists and labels from a data set's archive or a folder per class; few-shot lists; copies."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mote_fast.cli import prepare_fewshot, prepare_reencode, prepare_shards
from mote_fast.prepare.folder import read_folder
from mote_fast.prepare.hmdb51 import read_hmdb51
from mote_fast.prepare.kinetics import read_k400, read_k600
from mote_fast.prepare.lists import DataSet
from mote_fast.prepare.scan import ScanOptions
from mote_fast.prepare.ssv2 import read_ssv2
from mote_fast.prepare.ucf101 import read_ucf101
from mote_fast.prepare.write_data_set import REPORT_FILES, write_data_set

# Each adds one step with its add_command(steps).
STEPS = (prepare_fewshot, prepare_reencode, prepare_shards)

# Data sets that come with annotations: their reader, and the files that it wants.
PUBLISHED: dict[str, tuple[Callable[[Sequence[Path], Path], DataSet], str]] = {
    "ucf101": (read_ucf101, "classInd.txt, trainlist01..03.txt, testlist01..03.txt"),
    "hmdb51": (read_hmdb51, "CLASS_test_split1..3.txt"),
    "k400": (read_k400, "CSV files with label, youtube_id, time_start, time_end, split"),
    "k600": (read_k600, "CSV files with label, youtube_id, time_start, time_end, split"),
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
        step.set_defaults(run=run_published)
    step = steps.add_parser("folder", help="from a folder per class", description="Lists from a folder per class.")
    step.add_argument(
        "--val-share",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of each class for the validation list, where there are no train and val folders "
        "(default %(default)s)",
    )
    step.add_argument("--seed", type=int, default=0, help="of that split (default %(default)s)")
    _add_data_set_options(step)
    step.set_defaults(run=run_folder)
    for module in STEPS:
        module.add_command(steps)


def run_published(arguments: argparse.Namespace) -> int:
    """Prepare a published data set. Returns 0: finding bad videos is the report's purpose, and no failure."""
    scan = _scan_options(arguments)
    read, _ = PUBLISHED[arguments.step]
    return _write(read([Path(place) for place in arguments.annotations], Path(arguments.root)), scan, arguments)


def run_folder(arguments: argparse.Namespace) -> int:
    """Prepare a folder per class. Returns 0, see ``run_published``."""
    scan = _scan_options(arguments)
    data_set = read_folder(Path(arguments.root), val_share=arguments.val_share, seed=arguments.seed)
    return _write(data_set, scan, arguments)


def _add_data_set_options(parser: argparse.ArgumentParser) -> None:
    defaults = ScanOptions()
    parser.add_argument("--root", required=True, metavar="FOLDER", help="the videos; paths in the lists start here")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where lists, labels and report go")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of text")
    group = parser.add_argument_group("checks")
    group.add_argument(
        "--scan", action="store_true", help="open and decode every video, and look for equal files; can be interrupted"
    )
    group.add_argument(
        "--drop-bad", action="store_true", help="leave out of the lists what is missing, unreadable or too short"
    )
    group.add_argument(
        "--workers", type=int, default=_cores(), metavar="N", help="processes of the scan (default %(default)s)"
    )
    group.add_argument(
        "--scan-frames",
        type=int,
        default=defaults.frames,
        metavar="N",
        help="frames of each video to decode, 0 for none (default %(default)s)",
    )
    group.add_argument(
        "--min-frames",
        type=int,
        default=defaults.min_frames,
        metavar="N",
        help="fewer are too short (default %(default)s)",
    )
    group.add_argument(
        "--time-limit",
        type=float,
        default=defaults.time_limit,
        metavar="SECONDS",
        help="that a video may take (default %(default)s)",
    )


def _scan_options(arguments: argparse.Namespace) -> ScanOptions | None:
    options = ScanOptions(arguments.workers, arguments.scan_frames, arguments.min_frames, arguments.time_limit)
    return options if arguments.scan else None


def _write(data_set: DataSet, scan: ScanOptions | None, arguments: argparse.Namespace) -> int:
    output = Path(arguments.output)
    report = write_data_set(
        data_set, Path(arguments.root), output, scan=scan, drop_bad=arguments.drop_bad, force=arguments.force
    )
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print((output / REPORT_FILES[1]).read_text(encoding="utf-8"), end="")
    return 0


def _cores() -> int:
    return os.cpu_count() or 1
