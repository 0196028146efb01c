"""How fast every stage is on this machine, against the released recipe, and where the time goes.

    python benchmarks/throughput.py                      # ViT-B/16, everything, about ten minutes on two cores
    python benchmarks/throughput.py --quick              # under 90 seconds
    python benchmarks/throughput.py --stage clip --preset vit-l-14 --batch 1 3

Weights are random: times do not depend on their values. The arms of a workload take turns in one process. A ratio is
the median of the baseline arm, the released recipe written plainly (stages/released.py), over the arm's own. Peak
memory is what a call takes above what was held before it, weights excluded (benchmarks/memory.py counts whole
processes). The difference is that of the outputs, relative to the baseline arm's. TFLOP/s count matrix products that
the arm does; on a CPU the peak is a float32 product timed beside the arms (int8 arms may pass it), on a GPU the part's
published one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
import torch
from data import RATE, SECONDS, scene
from guard import violations
from harness import environment
from plots import plot_ratios, plot_waterfalls
from stages import STAGES, workloads_of
from stages.measure import Row, measure
from stages.ranked_labels import int8_on_labels
from stages.setting import PRESETS, Setting
from tqdm import tqdm
from waterfall import waterfalls

from mote_fast.data.decoding.video_writer import write_video
from mote_fast.runtime.environment import best_device

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def main() -> int:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        setting = setting_of(options, Path(folder))
        result = run(setting, list(STAGES) if options.stage == "all" else [options.stage])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.csv:
        report.write_csv(result["rows"], options.csv)
    if options.plot:
        plot_ratios(result["rows"], options.plot)
        if "waterfalls" in result:
            plot_waterfalls(result["waterfalls"], options.plot.with_stem(f"{options.plot.stem}_waterfall"))
    if options.check:
        lines = violations(result, json.loads(options.check.read_text(encoding="utf-8")))
        for line in lines:
            print(line, file=sys.stderr)
        return 1 if lines else 0
    return 0


def run(setting: Setting, stages: list[str]) -> dict[str, Any]:
    """Measure the stages, printing tables as they come, and return what the JSON file holds."""
    where = environment()
    print("\n".join(f"{name}: {value}" for name, value in where.items()), flush=True)
    rows: list[Row] = []
    bar = tqdm(workloads_of(setting, stages), unit="workload", disable=None)
    for workload in bar:
        bar.set_postfix_str(workload.name)
        # Training steps keep float32, whatever the dtype of inference.
        fresh = measure(workload, setting.device, torch.float32 if workload.stage == "train" else setting.dtype)
        rows += fresh
        tqdm.write("\n" + report.describe_rows(fresh, {workload.name: workload.note}), file=sys.stdout)
    for arm, why in setting.left_out.items():
        print(f"\nleft out: {arm}: {why}")
    result: dict[str, Any] = {"environment": where, "setting": setting.described(), "rows": rows}
    parts = report.path_seconds(rows, setting.frames, setting.views.clips)
    if "end2end" in stages and parts is not None:
        falls = waterfalls(parts)
        found = report.breakdown(parts, rows)
        begun = report.starts(parts, rows)
        print("\n" + report.describe_breakdown(found), report.describe_waterfalls(falls), sep="\n\n")
        for name, seconds in begun.items():
            print(f"{name}: {seconds['ratio']:.1f}x the released recipe (a loaded model, {len(setting.labels)} labels)")
        even = report.break_even(rows)
        for arm, videos in even.items():
            after = "never" if videos is None else f"after {videos:.0f} videos"
            print(f"{arm}: what preparing it costs is won back {after}")
        labels = int8_on_labels(setting)
        if labels is not None:
            print("\n" + report.describe_int8(labels))
            result["int8_on_labels"] = labels
        result |= {"breakdown": found, "waterfalls": falls, "starts": begun, "break_even_videos": even}
    return result


def setting_of(options: argparse.Namespace, folder: Path) -> Setting:
    """Read the options, and write a video where none is given."""
    video = options.video
    if video is None:
        seconds = 2 if options.quick else SECONDS
        video = Path(write_video(folder / "generated.mp4", scene(seconds * RATE), RATE, g=250, preset="medium"))
    return Setting(
        options.preset,
        video,
        folder,
        torch.device(options.device),
        DTYPES[options.dtype],
        options.frames or (2 if options.quick else 8),
        options.experts,
        tuple(options.batch),
        options.quick,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="vit-b-16")
    parser.add_argument("--stage", choices=["all", *STAGES], default="all")
    parser.add_argument(
        "--batch", nargs="+", type=int, default=[], help="views a call of clip, head and train (by stage: 1 3, 1 3, 8)"
    )
    parser.add_argument("--frames", type=int, help="frames a view (8, 2 in a quick run); training steps always take 8")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--video", type=Path, help="the file to decode; by default one is generated")
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of towers and head, both arms")
    parser.add_argument("--threads", type=int, help="CPU threads; PyTorch's own choice by default")
    parser.add_argument("--quick", action="store_true", help="one short view, few rounds, no compiled and no int8 arms")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--csv", type=Path, help="write the rows here")
    parser.add_argument("--plot", type=Path, help="PNG of ratios; the waterfall's goes beside it")
    parser.add_argument("--check", type=Path, help="compare ratios with this committed run; status 1 if one fell")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
