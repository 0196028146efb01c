"""The workloads of `benchmarks/run.py kernels` under pytest-benchmark.

``pytest benchmarks/test_kernels.py --benchmark-enable`` times them at ViT-B/16 sizes, batch 8; without that flag every
arm runs once at tiny sizes, as a test. Arms do not take turns here: `benchmarks/run.py kernels` compares fairly.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from experts import TrainingStep, expert_arms, merge_arms
from harness import OFFICIAL, OURS
from setting import HEADS

from mote_fast.runtime.environment import best_device

ARMS = {
    "merge": (OFFICIAL, OURS, "copy"),
    "experts": (OFFICIAL, OURS, "mote_fast, dense gradient"),
    "step": (OFFICIAL, OURS),
}


@pytest.mark.parametrize(("workload", "arm"), [(workload, arm) for workload, arms in ARMS.items() for arm in arms])
def test_workload(benchmark: Any, request: pytest.FixtureRequest, workload: str, arm: str) -> None:
    """One arm of one workload."""
    enabled = not request.config.getoption("benchmark_disable") or request.config.getoption("benchmark_enable")
    preset, batch = ("ViT-B-16", 8) if enabled else ("ViT-test", 2)
    config, device = HEADS[preset], torch.device(best_device())
    benchmark.group = f"{workload}, {preset}, batch {batch}"
    if workload == "step":
        benchmark(TrainingStep(arm, config, batch, device))
    else:
        arms = merge_arms(config, device) if workload == "merge" else expert_arms(config, batch, device)
        benchmark(next(each.call for each in arms if each.name == arm))
