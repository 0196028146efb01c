"""Peak memory of whole processes, weights and optimiser states included: ours against the released recipe.

    python benchmarks/memory.py --json benchmarks/results/memory.json --plot benchmarks/results/memory.png

Every arm runs in a process of its own, which holds that arm's model and nothing of the other's. The figure is the most
that was resident from the moment the model stood ready, less what the same process held once the libraries were
imported: weights, activations, gradients, optimiser states and whatever the allocators kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from data import RATE, scene
from eager import loss_of
from figure import save_bars
from harness import environment
from head_workloads import CLASSES, FRAMES, LEARNING_RATE, LOGIT_SCALE, PRESETS, WEIGHT_DECAY
from report import table
from stages import released
from stages.gauge import reset_peak, status
from stages.released import ReleasedHead
from stages.setting import PRESETS as NAMES
from stages.setting import Setting
from stages.workload import RELEASED
from tqdm import tqdm

from mote_fast import Draws, TrainingMethod, VideoHead, head_optimizer
from mote_fast.clip import encode_classes
from mote_fast.data import read_frames
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.head.head_config import HeadConfig

TEMPERATURES = TrainingMethod().temperatures()
OURS = "mote_fast"
ARMS = (RELEASED, OURS)
STEPS, VIDEOS, LABELS = 6, 2, 8
BATCH = 8


def training(arm: str, setting: Setting) -> Callable[[], None]:
    """Training steps of the head with its optimiser."""
    sizes = PRESETS[NAMES[setting.preset]]
    torch.manual_seed(0)
    head = VideoHead(HeadConfig(sizes.embed_dim, sizes.heads, sizes.layers, setting.experts))
    model = head if arm == OURS else released.EagerHead(head)
    optimizer = (
        head_optimizer(head, LEARNING_RATE, WEIGHT_DECAY)
        if arm == OURS
        else torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    )
    frames = torch.randn(BATCH, FRAMES, sizes.embed_dim).requires_grad_()
    classes, labels = torch.randn(CLASSES, sizes.embed_dim), torch.randint(CLASSES, (BATCH,))

    def run() -> None:
        for turn in range(STEPS):
            draws = Draws([turn % setting.experts] * sizes.layers, [TEMPERATURES[turn]] * sizes.layers)
            optimizer.zero_grad()
            frames.grad = None
            loss_of(model, frames, classes, labels, LOGIT_SCALE, draws).backward()
            optimizer.step()

    return run


def inference(arm: str, setting: Setting) -> Callable[[], None]:
    """Videos from file to scores, class features known."""
    plan, classes = setting.plan, setting.classes
    if arm == OURS:
        model = setting.folded
        # What a user of ``load(...).fold()`` holds: the unfolded head goes.
        del setting.model
        return lambda: _repeat(lambda: model.scores(setting.video, classes, setting.views))
    theirs, towers = ReleasedHead(setting.head).eval(), setting.model.clip
    del setting.model
    wanted = plan.frame_indices[plan.positions].flatten().tolist()
    return lambda: _repeat(
        lambda: released.classify(setting.video, wanted, towers, theirs, classes, setting.views.clips)
    )


def class_features(arm: str, setting: Setting) -> Callable[[], None]:
    """Class features of a few labels."""
    towers, labels = setting.model.clip, setting.labels[:LABELS]
    encode = encode_classes if arm == OURS else released.encode_labels

    def run() -> None:
        encode(towers, labels)

    return run


WORK = {"training the head": training, "inference": inference, "class features": class_features}


def _repeat(call: Callable[[], Any]) -> None:
    for _ in range(VIDEOS):
        call()


def child(work: str, arm: str, setting: Setting) -> float:
    """MiB at the peak of one arm; called in a process of its own."""
    # Decoders are loaded at their first use, and belong to the libraries.
    if arm == OURS:
        read_frames(setting.video, [0])
    else:
        released.read(setting.video, [0])
    imported = status("VmRSS")
    run = WORK[work](arm, setting)
    if not reset_peak():
        raise SystemExit("peak memory is read from /proc, which this system does not have")
    run()
    return status("VmHWM") - imported


def measure(options: argparse.Namespace, video: Path) -> list[dict[str, Any]]:
    """Run every arm of every kind of work in a process of its own."""
    rows = []
    for work in tqdm(WORK, unit="workload", disable=None):
        peaks = {}
        for arm in ARMS:
            command = [sys.executable, __file__, "--child", work, arm, "--video", str(video)]
            command += ["--preset", options.preset, "--experts", str(options.experts)]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                raise SystemExit(f"{work}, {arm}: {answer.stderr.strip().splitlines()[-1]}")
            peaks[arm] = float(answer.stdout)
        for arm, peak in peaks.items():
            rows.append(
                {"work": work, "arm": arm, "peak_mib": round(peak, 1), "share": round(peak / peaks[RELEASED], 3)}
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=NAMES, default="vit-b-16")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--video", type=Path, help="the file to decode; by default one is generated")
    parser.add_argument("--quick", action="store_true", help="the tiny preset: does everything run?")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="PNG")
    parser.add_argument("--child", nargs=2, metavar=("WORK", "ARM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.preset = "tiny"
    with tempfile.TemporaryDirectory() as folder:
        if options.child:
            setting = Setting(options.preset, options.video, Path(folder), experts=options.experts)
            work, arm = options.child
            print(child(work, arm, setting))
            return
        video = options.video or Path(write_video(Path(folder) / "generated.mp4", scene(4 * RATE), RATE, g=250))
        rows = measure(options, video)
    lines = [[row["work"], row["arm"], f"{row['peak_mib']:.1f}", f"{row['share']:.2f}"] for row in rows]
    print(table(["work", "arm", "peak MiB", "of the released recipe"], lines))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"environment": environment(), "preset": options.preset, "batch": BATCH, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        groups: dict[str, dict[str, float]] = {}
        for row in rows:
            groups.setdefault(row["work"], {})[row["arm"]] = row["peak_mib"]
        save_bars(options.plot, f"Peak memory of a process above its libraries, {options.preset}", "MiB", groups)


if __name__ == "__main__":
    main()
