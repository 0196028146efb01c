"""The unreadable videos of a run, gathered over its processes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.runtime.files import write_text
from mote_fast.runtime.json_text import to_json
from mote_fast.training.build import Loaders
from mote_fast.training.logs import RunLog
from mote_fast.training.state import RunProgress

FAULTS_FILE = "faults.jsonl"


def report_faults(loaders: Loaders, world: ProcessGroup, log: RunLog, output: Path, progress: RunProgress) -> None:
    """List every failed video once in ``faults.jsonl``, and count them; every process must call it.

    Each line of the file has the list ("train" or "val") and the fields of ``Failure``.
    """
    own = [("train", failure) for failure in loaders.training.faults.failures]
    if loaders.validation is not None:
        own += [("val", failure) for failure in loaders.validation.faults.failures]
    # Two processes may have read the same video in different epochs.
    found = {(split, failure.index, failure.path): failure for part in world.gather(own) for split, failure in part}
    counts = {split: sum(key[0] == split for key in found) for split in ("train", "val")}
    if not found or not world.leads:
        return
    file = output / FAULTS_FILE
    lines = [to_json({"list": split, **asdict(failure)}) for (split, *_), failure in sorted(found.items())]
    write_text(file, "\n".join(lines) + "\n")
    values = {"epoch": progress.epoch + 1, **counts}
    line = f"unreadable so far: {counts['train']} videos to train on, {counts['val']} to validate; listed in {file}"
    log.record("faults", progress.step, values, line)
