"""``mote-fast prepare``: makes lists and labels from an archive or a folder per class, few-shot lists, and copies."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from mote_fast.cli import (
    outputs,
    prepare_activitynet,
)
from mote_fast.prepare.folder import read_folder
from mote_fast.prepare.hmdb51 import read_hmdb51
from mote_fast.prepare.kinetics import read_k400, read_k600, read_k700
from mote_fast.prepare.lists import DataSet
from mote_fast.prepare.named_table import read_named_table
from mote_fast.prepare.prepare_settings import ScanOptions
from mote_fast.prepare.ssv2 import read_ssv2
from mote_fast.prepare.ucf101 import read_ucf101
from mote_fast.prepare.write_data_set import REPORT_FILES, write_data_set

# Readers of data sets with annotations.
PUBLISHED: dict[str, Callable[[Sequence[Path], Path], DataSet]] = {
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "k400": read_k400,
    "k600": read_k600,
    "k700": read_k700,
    "ssv2": read_ssv2,
}


def run(arguments: argparse.Namespace) -> int:
    """Prepare a data set. Returns 0: bad videos are reported, and are not a failure."""
    scan = ScanOptions(arguments.workers, arguments.scan_frames, arguments.min_frames, arguments.time_limit)
    root, output = Path(arguments.root), Path(arguments.output)
    data_set = _read(arguments, root)
    scanned = scan if arguments.scan else None
    report = write_data_set(data_set, root, output, scan=scanned, drop_bad=arguments.drop_bad, force=arguments.force)
    outputs.show(arguments, report, (output / REPORT_FILES[1]).read_text(encoding="utf-8").rstrip().split("\n"))
    if arguments.step in ("folder", "csv") and not arguments.json:
        outputs.write(f"\nNext:\n  {_training_command(root, output)}")
    return 0


def _training_command(root: Path, output: Path) -> str:
    """The command that trains on the lists."""
    settings = {"train_list": output / "trainlist.txt", "train_root": root, "labels": output / "labels.csv"}
    settings["flip_labels"] = output / "flip_labels.csv"
    # A class of one video leaves none to validate on.
    if (validation := output / "vallist.txt").exists():
        settings |= {"val_list": validation, "val_root": root}
    words = ["mote-fast", "train", "--config", "folder", *(f"data.{key}={path}" for key, path in settings.items())]
    return shlex.join([*words, f"run.output={Path('runs', output.name)}"])


def _read(arguments: argparse.Namespace, root: Path) -> DataSet:
    if arguments.step == "folder":
        return read_folder(root, val_share=arguments.val_share, seed=arguments.seed)
    if arguments.step == "csv":
        return read_named_table(Path(arguments.annotations), val_share=arguments.val_share, seed=arguments.seed)
    if arguments.step == "activitynet":
        return prepare_activitynet.read(arguments, root)
    return PUBLISHED[arguments.step]([Path(place) for place in arguments.annotations], root)
