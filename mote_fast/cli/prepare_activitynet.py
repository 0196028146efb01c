"""``mote-fast prepare activitynet``: lists of ActivityNet's annotated segments, and the clips that they name."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mote_fast.cli import prepare_reencode
from mote_fast.prepare.activitynet import cut_activitynet, read_activitynet, read_segments
from mote_fast.prepare.cut import JOURNAL_FILE
from mote_fast.prepare.lists import LABELS_FILE, DataSet
from mote_fast.prepare.write_data_set import REPORT_FILES
from mote_fast.runtime.files import check_writable, make_folder


def read(arguments: argparse.Namespace, root: Path) -> DataSet:
    """Cut the clips if asked to, and read the data set."""
    places = [Path(place) for place in arguments.annotations]
    encoding = prepare_reencode.encoding_of(arguments)
    notes: tuple[str, ...] = ()
    if arguments.cut_from is not None:
        segments, _ = read_segments(places)
        if not (root / JOURNAL_FILE).exists():
            # Before hours of cutting. An interrupted run may have left lists, which are compared in the end.
            lists = {f"{segment.split}list.txt" for segment in segments}
            check_writable(Path(arguments.output), [*sorted(lists), LABELS_FILE, *REPORT_FILES], arguments.force)
        make_folder(root, "--root")
        notes = cut_activitynet(
            segments,
            Path(arguments.cut_from),
            root,
            encoding,
            workers=arguments.workers,
            time_limit=arguments.cut_time_limit,
        )
    data_set = read_activitynet(places, root)
    return replace(data_set, notes=(*data_set.notes, *notes))
