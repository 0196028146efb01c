"""What every benchmark shares: interleaved arms, percentiles, and a header that says where the figures came from."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from mote_fast.cli.backends import device_summary, versions


class Timing(NamedTuple):
    """Seconds per call of one arm."""

    median: float
    p20: float
    p80: float


def compare(
    arms: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time the arms in turn, ``rounds`` times over, so that a slow moment of the machine hits all of them.

    Args:
        arms: name -> the call to time. CUDA work is waited for.
        rounds: turns of each arm.
        warmup: untimed turns before.
        clock: ``time.process_time`` counts the processor time of all threads instead of the wall's.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in tqdm(range(warmup + rounds), unit="round", disable=None, leave=False):
        for name, call in arms.items():
            _wait()
            start = clock()
            call()
            _wait()
            if turn >= warmup:
                seconds[name].append(clock() - start)
    return {name: summarise(values) for name, values in seconds.items()}


def summarise(seconds: list[float]) -> Timing:
    """Return the median and the 20th and 80th percentile."""
    if len(seconds) < 2:
        return Timing(seconds[0], seconds[0], seconds[0])
    fifths = statistics.quantiles(seconds, n=5, method="inclusive")
    return Timing(statistics.median(seconds), fifths[0], fifths[3])


def environment() -> dict[str, Any]:
    """Describe the machine, the versions and the commit."""
    return {
        "device": device_summary(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "versions": {package: version for package, version in versions().items() if version is not None},
        "commit": _commit(),
    }


def publish(report: Mapping[str, Any], path: Path | None) -> None:
    """Print a report as JSON, and write it to ``path`` where one is given."""
    text = json.dumps(report, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                flags = " with AVX-512" if "avx512f" in info.read_text() else ""
                return line.split(":", 1)[1].strip() + flags
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
