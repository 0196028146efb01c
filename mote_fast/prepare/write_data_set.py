"""Checks a data set's videos against its annotations, and writes the lists, labels and report."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mote_fast.data.flip_labels import format_flip_labels
from mote_fast.errors import ListError
from mote_fast.prepare.data_report import BAD_KINDS, Problem, build_report, format_report
from mote_fast.prepare.duplicates import Duplicates, find_duplicates
from mote_fast.prepare.lists import LOCK_FILE, DataSet, format_labels, format_list, why_unlistable
from mote_fast.prepare.prepare_settings import ScanOptions
from mote_fast.prepare.scan import Scanned, scan_videos
from mote_fast.runtime.files import check_writable, make_folder, write_texts
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.lock import FileLock
from mote_fast.runtime.text import printable

logger = logging.getLogger(__name__)

FLIP_LABELS_FILE = "flip_labels.csv"
REPORT_FILES = ("report.json", "report.txt")
JOURNAL_FILE = "scan.jsonl"


def write_data_set(
    data_set: DataSet,
    root: Path,
    output: Path,
    *,
    scan: ScanOptions | None = None,
    drop_bad: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Check a data set's videos and write its lists, labels and report into ``output``; return the report.

    A list keeps every annotated video, unless ``drop_bad`` omits the bad ones; videos whose names a list cannot hold
    are always omitted. The report has every problem. Identical files, and files cut short after frames that decode, are
    reported and never omitted.

    An interrupted call is continued by the same one: files that have their text already stay.

    Args:
        data_set: the data set as annotated.
        root: root folder of the videos.
        output: output folder, created if missing. A scan stores its journal there, and continues from it.
        scan: open every video and find identical files; None only checks that the files exist.
        drop_bad: omit missing, unreadable and too short videos from the lists.
        force: replace existing files.

    Raises:
        ConfigError: a file exists, with another text, and ``force`` is not set; a file cannot be written; or another
            process is writing to ``output``.
        ListError: no video exists under ``root``, or a label file cannot hold a class's name.
    """
    # Before hours of scanning: a class may have a name that no label file can hold.
    contents = {name: format_labels(names) for name, names in data_set.labels.items()}
    if data_set.flip_labels is not None:
        contents[FLIP_LABELS_FILE] = format_flip_labels(data_set.flip_labels)
    files = [*(each.name for each in data_set.lists), *contents, *REPORT_FILES]
    problems, sizes = _look_for_files(data_set, root)
    if not sizes:
        example = next(iter(data_set.paths()), "no annotated video")
        raise ListError(f"{root}: has none of the videos of {data_set.name}, such as {example}; check --root")
    make_folder(output, names=files)
    with FileLock(output / LOCK_FILE, f"--output {output}"):
        scanned: dict[str, Scanned] | None = None
        duplicates: list[Duplicates] = []
        if scan is not None:
            if not (output / JOURNAL_FILE).exists():
                # Before a new scan of hours. An interrupted one may have left files, which are compared in the end.
                check_writable(output, files, force)
            refused = {problem.path for problem in problems}
            open_to_scan = {path: size for path, size in sizes.items() if path not in refused}
            scanned = scan_videos(root, list(open_to_scan), output / JOURNAL_FILE, scan)
            problems += _judge(scanned, scan.min_frames)
            duplicates = find_duplicates(root, open_to_scan, scan.workers)
        bad = {problem.path for problem in problems if problem.kind in (BAD_KINDS if drop_bad else ("unlistable",))}
        lists = {each.name: [item for item in each.items if item.path not in bad] for each in data_set.lists}
        written = {name: len(kept) for name, kept in lists.items() if kept}
        notes = [f"{name} was not written: it would be empty." for name, kept in lists.items() if not kept]
        report = build_report(data_set, os.fspath(root), written, problems, scanned, duplicates, notes)
        for note in report["notes"]:
            logger.warning("%s", note)
        contents |= {name: format_list(lists[name]) for name in written}
        contents["report.json"] = to_json(report, indent=2) + "\n"
        contents["report.txt"] = printable(format_report(report))
        write_texts(output, contents, force)
    return report


def _look_for_files(data_set: DataSet, root: Path) -> tuple[list[Problem], dict[str, int]]:
    """Return the problems found without opening files, and path -> bytes of the existing files."""
    problems: list[Problem] = []
    sizes: dict[str, int] = {}
    for path in tqdm(data_set.paths(), unit="videos", desc="look", disable=None, delay=2):
        try:
            status = (root / path).stat()
        except OSError as error:
            problems.append(Problem("missing", path, f"no such file ({error.strerror})"))
            continue
        sizes[path] = status.st_size
        if not stat.S_ISREG(status.st_mode):
            problems.append(Problem("unreadable", path, "not a regular file"))
        elif reason := why_unlistable(path):
            problems.append(Problem("unlistable", path, reason))
        elif sizes[path] == 0:
            problems.append(Problem("unreadable", path, "an empty file; fetch or copy it again"))
    return problems, sizes


def _judge(scanned: Mapping[str, Scanned], min_frames: int) -> list[Problem]:
    problems: list[Problem] = []
    for path, found in scanned.items():
        if found.kind:
            problems.append(Problem("unreadable", path, f"{found.reason} ({found.kind})"))
            continue
        if found.num_frames < min_frames:
            problems.append(Problem("short", path, f"{found.num_frames} frames, fewer than {min_frames}"))
        if found.cut_short:
            problems.append(Problem("cut short", path, f"damaged or cut short after {found.num_frames} frames"))
    return problems
