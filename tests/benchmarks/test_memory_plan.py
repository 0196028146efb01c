"""Counted memory of training: what is counted, and that the paper's runs fit the paper's cards."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import memory
import memory_plan
import pytest
import torch
from memory_plan import GIB, MemoryPlan, plan, read_config, step_bytes
from torch.utils.checkpoint import checkpoint

import mote_fast

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
SMOKE = CONFIGS / "smoke.yaml"


def test_allocations_are_counted_until_they_are_freed() -> None:
    """Views count once; the peak stays when memory is freed; recomputation holds less."""
    with memory_plan._Allocations() as allocated:
        first = torch.zeros(1000)
        view = first[10:].view(-1)
        assert (allocated.now, allocated.most) == (4000, 4000)
        second = first * 2
        assert allocated.now == 8000
        del first, second
        assert (allocated.now, allocated.most) == (4000, 8000)
        del view
        assert (allocated.now, allocated.most) == (0, 8000)

    def deep(x: torch.Tensor) -> torch.Tensor:
        for _ in range(9):
            x = x.sin()
        return x

    most: list[int] = []
    for function in (deep, lambda x: checkpoint(deep, x, use_reentrant=False)):
        leaf = torch.zeros(1000, requires_grad=True)
        with memory_plan._Allocations() as allocated:
            kept = function(leaf)
            most.append(allocated.now)
            del kept
    assert most == [9 * 4000, 4000]


def test_parts_of_a_plan() -> None:
    """Weights, moments, exchanged gradients and batches are those of the model and the configuration."""
    config = read_config(SMOKE)
    model = mote_fast.create_model(config.model.arch, layers=config.model.layers)
    found = plan(config)
    assert found.weights >= 4 * sum(parameter.numel() for parameter in model.parameters())
    experts = sum(block.mlp.weight.numel() for block in model.head.temporal_blocks())
    assert found.moments == 2 * (found.gradients + 4 * experts)
    assert found.batches == 2 * 4 * 4 * 8 * 3 * 64**2
    assert found.total == sum(found)
    frozen = plan(replace(config, model=replace(config.model, train_clip=False)))
    assert frozen.gradients < found.gradients
    assert frozen.step < found.step
    assert frozen.weights == found.weights


def test_what_fits() -> None:
    """A plan fits if CUDA's own share is left."""
    assert MemoryPlan(22 * GIB, 0, 0, 0, 0).fits
    assert not MemoryPlan(22 * GIB, 0, 0, 0, 1).fits


@pytest.mark.heavy
def test_the_step_of_a_batch() -> None:
    """Without recomputation the step grows with the batch; several labels per video are counted too."""
    config = read_config(SMOKE, ["optim.precision=bf16"])
    steps = [plan(replace(config, data=replace(config.data, batch_size=clips))).step for clips in (4, 8, 16)]
    assert steps[2] - steps[1] == pytest.approx(2 * (steps[1] - steps[0]), rel=0.1)
    several = plan(read_config(SMOKE, ["optim.precision=bf16", "method.loss=bce", "data.flip_labels=null"]))
    assert several.step == pytest.approx(plan(config).step, rel=0.05)


@pytest.mark.heavy
def test_recomputation_is_needed_and_enough() -> None:
    """ViT-B/16 with 64 clips: 24 GiB do without it in no precision, and with it leave much."""
    name = CONFIGS / "k400_vit_b_16.yaml"
    assert plan(read_config(name)).total < 8 * GIB
    without = plan(read_config(name, ["optim.grad_checkpointing=false"]))
    assert not without.fits
    # 32.7 GiB of saved tensors, and under a GPU's autocast the inputs of its layer normalisations once more.
    assert 32.7 < without.step / GIB < 40


@pytest.mark.slow
def test_few_groups_need_what_all_need() -> None:
    """The plan counts a few recomputed groups of frames; the whole batch holds the same at once."""
    config = read_config(CONFIGS / "k400_vit_b_16.yaml")
    model, _ = memory_plan._fake_model(config)
    assert step_bytes(config, model, config.data.batch_size)[0] == pytest.approx(plan(config).step, rel=0.01)


@pytest.mark.slow
def test_every_configuration_fits_the_papers_card(tmp_path: Path) -> None:
    """Every file that is not for the CPU trains within 24 GiB, the memory of the paper's GPUs."""
    known: dict[object, MemoryPlan] = {}
    for path in sorted(CONFIGS.rglob("*.yaml")):
        if path.name in ("tiny_world.yaml", "smoke.yaml"):
            continue
        config = read_config(path)
        # Files that differ in nothing that takes memory share a count.
        model = replace(config.model, modulation=True, modulation_top_k=5, modulation_gamma=0.05, aggregation="merge")
        sizes = (config.data.batch_size, config.data.frames)
        key = (model, sizes, config.method, config.optim.precision, config.optim.grad_checkpointing)
        if key not in known:
            known[key] = plan(config)
        assert known[key].fits, f"{path}: {known[key].total / GIB:.1f} GiB"
    assert len(known) > 10


@pytest.mark.slow
def test_manual_has_the_table() -> None:
    """The table of docs/training.md is what the command prints."""
    printed = subprocess.run(
        [sys.executable, "benchmarks/memory.py", "--plan"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.mark.heavy
def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One row, and a status that says whether it fits; a wrong setting is one line."""
    command = [sys.executable, "benchmarks/memory.py", "--plan", str(SMOKE)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"smoke\.yaml \| ViT-test \| 4 x 8 \| fp32 \| no \|.*\| yes \|$", found.stdout.strip())
    monkeypatch.setattr(sys, "argv", [*command[1:], "optim.lrr=1"])
    assert memory.main() == 2
    assert capsys.readouterr().err.count("\n") == 1
