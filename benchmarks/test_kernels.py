"""The workloads of benchmarks/kernels.py under pytest-benchmark.

``pytest benchmarks/test_kernels.py --benchmark-enable`` times them at ViT-B/16 sizes, batch 8; without that flag every
arm runs once at tiny sizes, as a test. Arms do not take turns here: benchmarks/kernels.py is the fair comparison.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from head_workloads import WORKLOADS, Setting

from mote_fast.runtime.environment import best_device

ARMS = {
    "merge": ("mote_fast", "eager", "copy"),
    "experts": ("mote_fast", "mote_fast, dense gradient", "eager"),
    "step": ("mote_fast", "eager"),
}


@pytest.mark.parametrize(("workload", "arm"), [(workload, arm) for workload, arms in ARMS.items() for arm in arms])
def test_workload(benchmark: Any, request: pytest.FixtureRequest, workload: str, arm: str) -> None:
    """One arm of one workload."""
    enabled = not request.config.getoption("benchmark_disable") or request.config.getoption("benchmark_enable")
    preset, batch = ("ViT-B-16", 8) if enabled else ("tiny", 2)
    setting = Setting(preset, batch, torch.device(best_device()))
    benchmark.group = f"{workload}, {preset}, batch {batch}"
    benchmark(WORKLOADS[workload](setting)[arm])
