"""What every benchmark shares: arms that take turns, rows made of them, and a header that says where they came from."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from gauge import measured
from rows import Row
from setting import Setting
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from mote_fast.cli.backends import device_summary, versions
from mote_fast.ops.products import linear

OFFICIAL, OURS, BFLOAT16 = "official", "mote_fast", "mote_fast, bfloat16"
GEMM = "GEMM peak"
# Largest relative difference of outputs that count as equal, in float32 and where both arms compute in 16 bits.
EQUAL, SIXTEEN_BIT = 1e-4, 0.02
# MiB of the baseline's memory below which a share of it is allocator noise.
MEMORY_FROM = 32.0

Key = TypeVar("Key", bound=Hashable)


def compare(
    calls: Mapping[Key, Callable[[], object]], turns: int, warmup: int, clock: Callable[[], float] = time.perf_counter
) -> dict[Key, list[float]]:
    """Time the calls in turn, so that a slow moment of the machine hits all of them: seconds of every turn.

    CUDA work is waited for. As a clock, ``time.process_time`` counts the processor time of all threads.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in calls}
    for turn in tqdm(range(warmup + turns), unit="turn", disable=None, leave=False):
        for name, call in calls.items():
            _wait()
            start = clock()
            call()
            _wait()
            if turn >= warmup:
                seconds[name].append(clock() - start)
    return seconds


def summarise(seconds: Sequence[float], scale: float = 1.0) -> tuple[float, float, float]:
    """Return the median and the 20th and 80th percentile, times ``scale``."""
    fifths = statistics.quantiles(seconds, n=5, method="inclusive") if len(seconds) > 1 else list(seconds) * 4
    return scale * statistics.median(seconds), scale * fifths[0], scale * fifths[3]


def environment() -> dict[str, Any]:
    """Describe the machine, the versions and the commit."""
    return {
        "device": device_summary(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "versions": {package: version for package, version in versions().items() if version is not None},
        "commit": commit(),
    }


def commit(folder: Path = Path(__file__).parent) -> str:
    """The commit that is measured, with "-dirty" where the files differ from it; results may, for they are written."""
    git = ["git", "-C", str(folder)]
    others = ["--", ":(top)", ":(top,exclude)benchmarks/results"]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain", *others], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-dirty" if status.stdout else "")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _processor() -> str:
    """The processor by name, family and the instruction sets that decide its speed, as Linux tells them."""
    info = Path("/proc/cpuinfo")
    return described(info.read_text()) if info.is_file() else platform.processor() or platform.machine()


def described(cpuinfo: str) -> str:
    """The first processor of a text of /proc/cpuinfo: "AMD EPYC (family 23, model 1) with AVX2"."""
    lines = (line.partition(":") for line in cpuinfo.split("\n\n")[0].splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    name = fields.get("model name", platform.machine())
    if {"cpu family", "model"} <= fields.keys():
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16", "amx_tile": "AMX"}
    has = set(fields.get("flags", "").split())
    flags = " ".join(each for flag, each in known.items() if flag in has)
    return f"{name} with {flags}" if flags else name


@dataclass(frozen=True)
class Arm:
    """One way to do the work of a workload.

    Attributes:
        name: unique among the arms of its size.
        call: the work; a tensor that it returns is compared with the baseline arm's.
        x: size of the work, where a workload has several; each has a baseline of its own.
        clips: views of T frames that one call deals with; 0 where the work is not counted in clips.
        scale: whole work over the part that a call measures; times are multiplied by it.
        flops: floating-point operations of one call, products and sums counted apart.
        nbytes: bytes that one call cannot avoid moving: weights, inputs and outputs, once each.
        tolerance: largest relative difference to the baseline that counts as equal; None where it is not comparable.
        preparation: seconds that were spent before the arm could be called, on compiling or exporting.
        yardstick: measures the machine, not a way to do the work.
    """

    name: str
    call: Callable[[], Any]
    x: float | None = None
    clips: float = 0.0
    scale: float = 1.0
    flops: float | None = None
    nbytes: float | None = None
    tolerance: float | None = EQUAL
    preparation: float = 0.0
    yardstick: bool = False


@dataclass(frozen=True)
class Workload:
    """Arms that take turns, the baseline of each size first; ``turns`` bounds the time of what takes seconds a call."""

    benchmark: str
    case: str
    arms: list[Arm]
    turns: int
    warmup: int = 2
    clock: Callable[[], float] = time.perf_counter


def gemm(rows: int, width: int, setting: Setting, x: float | None = None) -> Arm:
    """A product of the shape of a tower's first MLP layer, ``[rows, width] x [width, 4 width]``: the peak.

    It goes to the fastest library that computes it exactly (``mote_fast.ops.products``).
    """
    like = {"device": setting.device, "dtype": setting.dtype}
    left, right = torch.randn(rows, width, **like), torch.randn(4 * width, width, **like)
    call = torch.no_grad()(partial(linear, left, right))
    return Arm(GEMM, call, x, flops=8.0 * rows * width * width, tolerance=None, yardstick=True)


def measure(workload: Workload, setting: Setting) -> Iterator[Row]:
    """Measure every arm of a workload: they take turns, then each runs once more, warm, for its output and memory."""
    always = {workload.arms[0].name, OURS}
    kept = (arm for arm in workload.arms if arm.yardstick or arm.name in always or setting.wants(arm.name))
    arms = {(arm.x, arm.name): arm for arm in kept}
    turns = setting.turns(workload.turns)
    clock = time.process_time if setting.processor_time else workload.clock
    samples = compare({key: arm.call for key, arm in arms.items()}, turns, workload.warmup, clock)
    last = {key: measured(arm.call, setting.device) for key, arm in arms.items()}
    timings = {key: summarise(samples[key], arm.scale) for key, arm in arms.items()}
    bases: dict[float | None, tuple[float | None, str]] = {}
    for key, arm in arms.items():
        base = bases.setdefault(arm.x, key)
        row = partial(Row, workload.benchmark, workload.case, arm.name, x=arm.x)
        yield row("time", "ms", *(1e3 * seconds for seconds in timings[key]), turns)
        once = timings[key][0] / arm.scale
        if arm.flops is not None:
            yield row("rate", "TFLOP/s", arm.flops / once / 1e12)
        if arm.yardstick:
            continue
        yield row("ratio", "x", timings[base][0] / timings[key][0])
        output, peak = last[key]
        if peak is not None:
            yield row("memory", "MiB", peak)
            if (reference := last[base][1] or 0.0) >= MEMORY_FROM:
                yield row("memory share", "", peak / reference)
        if arm.clips:
            yield row("throughput", "clips/s", arm.clips / once)
        yield from _agreement(row, arm, output, last[base][0], setting.dtype)
        product = timings.get((arm.x, GEMM))
        if arm.flops is not None and product is not None:
            yield row("of peak", "", arm.flops / once * product[0] / (arms[arm.x, GEMM].flops or 1.0))
        if arm.nbytes is not None:
            yield row("bandwidth", "GB/s", arm.nbytes / once / 1e9)
        if arm.scale != 1:
            yield row("scale", "", arm.scale)
        if arm.preparation:
            yield row("preparation", "ms", 1e3 * arm.preparation)


def _agreement(
    row: Callable[..., Row], arm: Arm, output: object, reference: object, dtype: torch.dtype
) -> Iterator[Row]:
    """Relative difference and mean cosine of rows; of the rows that both have, where one measured a part."""
    if arm.tolerance is None or not isinstance(output, Tensor) or not isinstance(reference, Tensor):
        return
    count = min(len(output), len(reference))
    mine, other = output[:count].detach().double().flatten(1), reference[:count].detach().double().flatten(1)
    yield row("difference", "", ((mine - other).norm() / other.norm()).item())
    yield row("tolerance", "", arm.tolerance if dtype == torch.float32 else max(arm.tolerance, SIXTEEN_BIT))
    yield row("cosine", "", F.cosine_similarity(mine, other, dim=-1).mean().item())
