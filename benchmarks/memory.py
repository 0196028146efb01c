"""Peak memory of whole processes, weights and optimiser states included: ours against the official recipe.

    python benchmarks/memory.py --plan configs/k400_vit_l_14.yaml data.batch_size=24
    python benchmarks/memory.py --plan

The first counts what training a configuration takes on a GPU, without running it, and exits with 1 if 24 GiB are too
few; the second prints the table of docs/training.md (see memory_plan.py). The measurements are those of
``benchmarks/run.py memory``.

Every arm runs in a process of its own, which holds that arm's model and nothing of the other's. The figure is the most
that was resident from the moment the model stood ready, less what the same process held once the libraries were
imported: weights, activations, gradients, optimiser states and what the allocators kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import official
import torch
from experts import TrainingStep
from gauge import in_new_process, reset_peak, status
from harness import BFLOAT16, OFFICIAL, OURS
from memory_plan import HEADER, documented_table, plan, read_config, row
from rows import Row
from setting import INT8, Setting

from mote_fast.clip import encode_classes
from mote_fast.data import read_frames
from mote_fast.errors import BackendError, MoteError

STEPS, BATCH, VIDEOS, LABELS = 6, 8, 2, 8


def training(arm: str, setting: Setting) -> Callable[[], object]:
    """Training steps of the head with its optimiser."""
    step = TrainingStep(arm, setting.heads[setting.preset], BATCH, setting.device)
    return lambda: [step() for _ in range(STEPS)]


def inference(arm: str, setting: Setting) -> Callable[[], object]:
    """Videos from file to scores, class features known."""
    plan, classes, video, views = setting.plan, setting.classes, setting.video, setting.views
    if arm != OFFICIAL:
        model = setting.folded
        # What a user of ``load(...).fold()`` holds: the unfolded head goes.
        del setting.model
        if arm == BFLOAT16:
            model.to(torch.bfloat16)
        if arm == INT8:
            model.int8 = setting.int8_tower(model.clip)
            model.int8.prepare()
        return lambda: [model.scores(video, classes, views) for _ in range(VIDEOS)]
    theirs, towers = official.OfficialHead(setting.model.head).eval(), setting.model.clip
    del setting.model
    wanted = plan.frame_indices[plan.positions].flatten().tolist()
    return lambda: [official.classify(video, wanted, towers, theirs, classes, views.clips) for _ in range(VIDEOS)]


def class_features(arm: str, setting: Setting) -> Callable[[], object]:
    """Class features of a few labels."""
    towers, labels = setting.model.clip, setting.labels[:LABELS]
    encode = encode_classes if arm == OURS else official.encode_labels
    return lambda: encode(towers, labels)


WORK = {"training the head": training, "inference": inference, "class features": class_features}


# Beside the official arm and ours; the tower of int8 is exported in a process before.
MORE_ARMS = {"inference": (BFLOAT16, INT8)}


def memory(setting: Setting) -> Iterator[Row]:
    """All arms of every kind of work."""
    # A copy without the models that this process made.
    bare = replace(setting, given=setting.video)
    for work in setting.stages or WORK:
        base = 0.0
        more = () if setting.quick or setting.dtype != torch.float32 else MORE_ARMS.get(work, ())
        for arm in (OFFICIAL, OURS, *filter(setting.wants, more)):
            if arm == INT8:
                try:
                    in_new_process(peak_of, work, arm, bare)
                except BackendError as error:
                    setting.left_out[arm] = str(error)
                    continue
            peak = in_new_process(peak_of, work, arm, bare)
            base = base or peak
            yield Row("memory", f"peak memory, {work}", arm, "memory", "MiB", peak)
            yield Row("memory", f"peak memory, {work}", arm, "share", "", peak / base)


def peak_of(work: str, arm: str, setting: Setting) -> float:
    """MiB at the peak of one arm, in a process that did nothing else."""
    # Decoders are loaded at their first use, and belong to the libraries.
    (official.read if arm == OFFICIAL else read_frames)(setting.video, [0])
    imported = status("VmRSS")
    run = WORK[work](arm, setting)
    if not reset_peak():
        raise SystemExit("peak memory is read from /proc, which this system does not have")
    run()
    return status("VmHWM") - imported


def main() -> int:
    """Print the plan of one configuration, or the documented table; return 1 if 24 GiB are too few, 2 on an error."""
    parser = argparse.ArgumentParser(description="Memory of training, counted without running it.")
    purpose = "YAML, of this project or of the official code; without a file the table of docs/training.md"
    parser.add_argument("--plan", required=True, nargs="?", const="", metavar="CONFIG", help=purpose)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that override the file's")
    arguments = parser.parse_args()
    if not arguments.plan:
        print(documented_table(Path(__file__).parents[1] / "configs"))
        return 0
    try:
        config = read_config(arguments.plan, arguments.overrides)
        found = plan(config)
    except MoteError as error:
        sys.stderr.write(f"memory.py: {error}\n")
        return 2
    print(HEADER)
    print(row(arguments.plan, config, found))
    return 0 if found.fits else 1


if __name__ == "__main__":
    sys.exit(main())
