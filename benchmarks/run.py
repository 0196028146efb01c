"""The benchmarks by name, and the command that measures one: it shows its rows, and writes them where asked.

    python benchmarks/run.py fold
    python benchmarks/run.py memory --quick
    python benchmarks/run.py data --json benchmarks/results/data.json --plot benchmarks/results/data.png

Weights are random: times do not depend on their values. The arms of a case take turns in one process, and every arm
does what the first does, the official recipe (``official.py``). A ratio is the baseline's median over the arm's own.
Memory is what a call takes above what was held before it, weights excluded (``memory`` counts whole processes). The
difference is that of the outputs, relative to the baseline's. Rates count matrix products that the arm does; their
peak is a product in the same dtype, timed beside the arms (int8 may pass it).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import experts
import torch
from class_features import FEATURES
from data import data
from end2end import RANKINGS, VIDEO
from figure import bars, lines, waterfalls
from guard import violations
from harness import environment
from head import HEAD, fold
from inference_scaling import AXES, inference_scaling
from matplotlib.figure import Figure
from memory import WORK, memory
from rows import Result, Row, check_clean, read_json, table, write_csv, write_json
from scaling import FIT, PHASES, scaling
from setting import HEADS, Setting
from throughput import BREAK_EVEN, COLD, STAGES, WARM, throughput
from tower import TOWER
from tqdm import tqdm

from mote_fast.runtime.environment import best_device

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PRESETS = {name.lower(): name for name in HEADS}

RATIO = ("time", "ratio", "cosine")
BOTH = ("ViT-B-16", "ViT-L-14")


@dataclass(frozen=True)
class Benchmark:
    """A function from a setting to rows, those of a case together, and what is made of them.

    ``shown`` are the metrics in the table of docs/performance.md by how their case begins; ``figures`` are plots by
    what is appended to their file's name. Presets and threads (PyTorch's own number where None) are what nothing else
    was asked for.
    """

    measure: Callable[[Setting], Iterator[Row]]
    stages: Collection[str] = ()
    shown: Mapping[str, Sequence[str]] = field(default_factory=dict)
    figures: Mapping[str, Callable[[Sequence[Row]], Figure]] = field(
        default_factory=lambda: {"": partial(bars, metric="ratio")}
    )
    presets: tuple[str, ...] = ("ViT-B-16",)
    quick_presets: tuple[str, ...] = ("ViT-test",)
    threads: int | None = None


# In the order of that table.
BENCHMARKS = {
    "throughput": Benchmark(
        throughput,
        STAGES,
        {
            # Longer beginnings stand before shorter ones.
            **dict.fromkeys((f"{COLD}, ", f"{WARM}, "), ()),
            **dict.fromkeys((COLD, WARM, VIDEO, HEAD, "training step", "one answer"), RATIO),
            TOWER: (*RATIO, "of peak"),
            FEATURES: (*RATIO, "difference", "scale"),
            BREAK_EVEN: ("videos",),
            RANKINGS: ("same best label", "top five shared", "lowest cosine"),
        },
        {"": partial(bars, metric="ratio"), "_waterfall": waterfalls},
        quick_presets=("ViT-B-16",),
    ),
    "memory": Benchmark(memory, WORK, {"peak memory": ("memory", "share")}, {"": partial(bars, metric="memory")}),
    "fold": Benchmark(fold, (), {"folding": RATIO}, presets=BOTH),
    "kernels": Benchmark(experts.kernels, experts.STAGES, {"merge": RATIO, "training step": RATIO}, presets=BOTH),
    "scaling": Benchmark(
        scaling,
        (),
        {"training step": ("backward", "gradients held"), FIT: ("of explained", "r2")},
        {"": partial(lines, metrics=(*PHASES, "step", "gradients held"))},
        threads=1,
    ),
    "inference_scaling": Benchmark(
        inference_scaling,
        AXES,
        figures={
            "": partial(lines, metrics=("time",), logarithmic=True),
            "_memory": partial(lines, metrics=("memory",), logarithmic=True),
        },
    ),
    "data": Benchmark(data, figures={"": partial(bars, metric="throughput")}, threads=1),
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    benchmark = BENCHMARKS[options.benchmark]
    if threads := options.threads or benchmark.threads:
        torch.set_num_threads(threads)
    where = environment()
    if options.json or options.csv or options.plot:
        # Before anything is measured: what cannot be written need not be waited for.
        check_clean(where)
    committed = read_json(options.check) if options.check else None
    print("\n".join(f"{name}: {each}" for name, each in where.items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        setting = setting_of(options, benchmark, Path(folder))
        rows = measured(benchmark, setting)
        missing = {*setting.arms}.difference(setting.left_out, (row.arm for row in rows))
        setting.left_out |= dict.fromkeys(sorted(missing), "no case has it")
        result = Result(where, setting.described(), rows)
    for arm, why in setting.left_out.items():
        print(f"\nleft out: {arm}: {why}")
    if options.json:
        write_json(result, options.json)
    if options.csv:
        write_csv(result, options.csv)
    if options.plot:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        for suffix, draw in benchmark.figures.items():
            draw(rows).savefig(options.plot.with_stem(options.plot.stem + suffix), dpi=110)
    if committed is None:
        return 0
    lines = violations(result, committed)
    for line in lines:
        print(line, file=sys.stderr)
    return 1 if lines else 0


def measured(benchmark: Benchmark, setting: Setting) -> list[Row]:
    """Measure, and print every case's table as it comes."""
    rows: list[Row] = []
    for _, case in groupby(benchmark.measure(setting), lambda row: (row.benchmark, row.case)):
        fresh = list(case)
        rows += fresh
        tqdm.write("\n" + table(fresh), file=sys.stdout)
        sys.stdout.flush()
    return rows


def setting_of(options: argparse.Namespace, benchmark: Benchmark, folder: Path) -> Setting:
    """The options as a setting, with the benchmark's own choices for what was left open."""
    presets = benchmark.quick_presets if options.quick else benchmark.presets
    return Setting(
        folder,
        tuple(PRESETS[name] for name in options.preset) or presets,
        options.video,
        options.clips,
        () if options.stage == "all" else (options.stage,),
        torch.device(options.device),
        DTYPES[options.dtype],
        options.frames or (2 if options.quick else 8),
        options.experts,
        tuple(options.batch),
        options.quick,
        tuple(options.arms),
        options.clock == "processor",
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="small cases, few turns, no compiled and no int8 arms")
    parser.add_argument("--stage", default="all", help="one part of the benchmark, such as a stage of throughput")
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=[], help="models, where the benchmark has any")
    parser.add_argument("--batch", nargs="+", type=int, default=[], help="views a call, where the benchmark has any")
    parser.add_argument("--frames", type=int, help="frames a view (8, 2 in a quick run); training steps always take 8")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--video", type=Path, help="the file to decode; by default one is generated")
    parser.add_argument("--clips", type=Path, help="data: folder of real clips; those named k400_* are measured too")
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of towers and head, both arms")
    parser.add_argument("--threads", type=int, help="CPU threads; the benchmark's or PyTorch's own choice by default")
    parser.add_argument("--arms", nargs="+", default=[], help="measured beside the baseline and ours; all by default")
    clocks = "what is counted: time that passes, or processor time of all threads, for machines that do other work too"
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help=clocks)
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--csv", type=Path, help="write the rows here")
    parser.add_argument("--plot", type=Path, help="PNG; where there are several, the others go beside it")
    parser.add_argument("--check", type=Path, help="compare with this committed run; status 1 if a ratio fell")
    options = parser.parse_args(arguments)
    stages = ("all", *BENCHMARKS[options.benchmark].stages)
    if options.stage not in stages:
        parser.error(f"--stage of {options.benchmark} is one of {', '.join(stages)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
