"""Stage "answer": the labels of one video, from the start of a process, by the clock of the user who waits.

Every figure comes from a process of its own (``one_answer.py``), by turns: the official recipe, and ours in each dtype,
twice: without the cache of class features, and with what the first of the two left in it. The official recipe has no
cache: it encodes every prompt of every label at each start. As that takes minutes, it encodes a few labels here, and
the time is scaled up. Ours encodes all of them. An int8 tower was exported before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from class_features import PADDED_LABELS
from harness import BFLOAT16, OFFICIAL, OURS, summarise
from rows import Row
from setting import INT8, Setting

from mote_fast.clip import FeatureCache

DTYPES = {OURS: "float32", BFLOAT16: "bfloat16", INT8: "int8"}
# Videos that a process answers after its first.
NEXT = 3


class Case(NamedTuple):
    """What a user waits for: parts of a process's time, and whether the cache of class features knew the labels."""

    name: str
    parts: tuple[str, ...]
    known: bool


CASES = (
    Case("one answer, new process, new labels", ("start", "labels", "video"), known=False),
    Case("one answer, new process, labels known", ("start", "labels", "video"), known=True),
    Case("one answer, loaded model, labels known", ("labels", "video"), known=True),
    Case("one answer, labels in memory", ("next",), known=True),
)


class Run(NamedTuple):
    """What one process took: seconds that passed and of processor time for each part, and MiB at its peak."""

    wall: Mapping[str, float]
    processor: Mapping[str, float]
    peak: float


def answer(setting: Setting) -> Iterator[Row]:
    """All cases, the official recipe first; on a CPU, from float32 weights."""
    if setting.device.type != "cpu" or setting.dtype != torch.float32:
        return
    folder, caches = setting.folder / "answer_model", setting.folder / "answer_caches"
    setting.model.save(folder)
    arms = [OFFICIAL, OURS] + [arm for arm in (BFLOAT16, INT8) if setting.wants(arm) and not setting.quick]
    start = partial(_run, setting, folder, caches)
    # Exports the tower.
    if INT8 in arms and isinstance(problem := start(INT8, 1), str):
        setting.left_out[INT8] = problem
        arms.remove(INT8)
    runs: dict[tuple[str, bool], list[Run]] = {}
    for _ in range(1 if setting.quick else 3):
        for arm in arms:
            # The folder that platformdirs makes of XDG_CACHE_HOME.
            FeatureCache(caches / "mote_fast").clear()
            for known in (False, True):
                if arm != OFFICIAL or not known:
                    found = start(arm, NEXT if (known or arm == OFFICIAL) and not setting.quick else 1)
                    if isinstance(found, str):
                        raise SystemExit(f"the process of {arm} failed: {found}")
                    runs.setdefault((arm, known), []).append(found)
        for arm in arms:
            runs[arm, True] = runs.get((arm, True)) or runs[arm, False]
    for case in CASES:
        yield from _rows(case, {arm: runs[arm, case.known] for arm in arms})


def _rows(case: Case, runs: Mapping[str, Sequence[Run]]) -> Iterator[Row]:
    base: dict[str, float] = {}
    for arm, each in runs.items():
        row = partial(Row, "answer", case.name, arm)
        for kind, ratio, of in (("time", "ratio", "wall"), ("processor time", "ratio of it", "processor")):
            totals = [sum(getattr(run, of)[part] for part in case.parts) for run in each]
            found = summarise(totals, 1e3)
            yield row(kind, "ms", *found, len(totals))
            yield row(ratio, "x", base.setdefault(kind, found[0]) / found[0])
        yield row("peak of the process", "MiB", max(run.peak for run in each))


def _run(setting: Setting, folder: Path, caches: Path, arm: str, following: int) -> Run | str:
    """Answer in a new process; the text of its error if it has one."""
    quick = setting.quick
    # Quick runs know only a few labels.
    labels = setting.labels[: 8 if quick else len(setting.labels)]
    encoded = min(len(labels), 1 if quick else PADDED_LABELS) if arm == OFFICIAL else len(labels)
    given = {
        "model": str(folder),
        "video": str(setting.video),
        "labels": labels[:encoded],
        "views": [setting.views.clips, setting.views.crops],
        "dtype": DTYPES.get(arm),
        "following": following,
        "threads": torch.get_num_threads(),
        "begun": time.time(),
    }
    command = [sys.executable, str(Path(__file__).with_name("one_answer.py"))]
    environment = os.environ | {"XDG_CACHE_HOME": str(caches)}
    done = subprocess.run(command, input=json.dumps(given), env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        return done.stderr.strip().splitlines()[-1]
    found = json.loads(done.stdout.splitlines()[-1])
    for times in (found["wall"], found["processor"]):
        times["labels"] *= len(labels) / encoded
    return Run(found["wall"], found["processor"], found["peak"])
