"""Several gloo processes: the gradients of one process over everything, exchanged once, experts as factors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from mote_fast.data.loading.batch import Batch
from mote_fast.errors import ConfigError
from mote_fast.runtime.distributed import ProcessGroup, joined
from mote_fast.training.build import build_optimizer
from mote_fast.training.config.sections import OptimConfig
from mote_fast.training.step import Arithmetic, Objective, distribute, draws_of_step, train_step
from tests.training.test_step import METHOD, batches, trainable

PROCESSES = 2
CLIPS = 4


def share(batch: Batch, rank: int) -> Batch:
    part = slice(rank * CLIPS // PROCESSES, (rank + 1) * CLIPS // PROCESSES)
    return Batch(batch.pixels[part], batch.labels[part], batch.indices[part])


def step(given: list[Batch], world: ProcessGroup, synchronised: bool) -> dict[str, torch.Tensor]:
    """Take a step and return the gradients that the update saw."""
    model = trainable()
    # All processes must start with the same weights, in spite of different draws.
    if world.rank:
        for parameter in model.parameters():
            parameter.data.add_(1.0)
    optimizer = build_optimizer(model, OptimConfig())
    objective = distribute(Objective(model, METHOD), optimizer, world)
    gradients: dict[str, torch.Tensor] = {}

    def keep(*_: object) -> None:
        for collector in optimizer.collectors.values():
            collector.densify()
        gradients.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    optimizer.register_step_pre_hook(keep)
    draws = draws_of_step(model.head, METHOD, len(given), seed=0, step=0, rank=None if synchronised else world.rank)
    train_step(objective, optimizer, iter(given), draws, Arithmetic("fp32", world.device), world_size=world.size)
    return gradients


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(PROCESSES), "LOCAL_RANK": str(rank)}
    store, init = dist.FileStore(f"{folder}/meet", PROCESSES), dist.init_process_group
    dist.init_process_group = lambda backend: init(backend, store=store, rank=rank, world_size=PROCESSES)
    with joined("cpu") as world:
        mine = [share(batch, rank) for batch in batches(2, CLIPS)]
        found = {synchronised: step(mine, world, synchronised) for synchronised in (True, False)}
        agreed = (world.any(rank == 1), world.any(False), world.gather(rank), world.mean(torch.tensor(float(rank))))
    torch.save((found, agreed), Path(folder) / f"{rank}.pt")


@pytest.mark.heavy
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    """With synchronised routing, twice batch b equals batch 2b; without, each process's gradients are averaged."""
    multiprocessing.spawn(worker, (str(tmp_path),), nprocs=PROCESSES)
    whole = batches(2, CLIPS)
    expected = {True: step(whole, ProcessGroup(0, 1, torch.device("cpu")), True)}
    parts = [alone([share(batch, rank) for batch in whole], rank) for rank in range(PROCESSES)]
    expected[False] = {name: (gradient + parts[1][name]) / 2 for name, gradient in parts[0].items()}
    for rank in range(PROCESSES):
        found, agreed = torch.load(tmp_path / f"{rank}.pt")
        assert agreed == (True, False, [0, 1], torch.tensor(0.5))
        for synchronised, gradients in expected.items():
            assert_same_gradients(found[synchronised], gradients)


def alone(given: list[Batch], rank: int) -> dict[str, torch.Tensor]:
    """The gradients of a single process, by plain backward passes."""
    model = trainable()
    objective = Objective(model, METHOD)
    for batch, draw in zip(given, draws_of_step(model.head, METHOD, 2, seed=0, step=0, rank=rank), strict=True):
        (objective(batch.pixels, batch.labels, draw).total / len(given)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in expected.items():
        # The gradient of the key bias is zero except for rounding, so norms below a hundredth count as zero.
        assert float((found[name] - gradient).norm()) <= 1e-5 * max(float(gradient.norm()), 1e-2 * largest), name


def test_ddp_is_told_of_all_but_the_experts(tmp_path: Path) -> None:
    """DDP ignores the stacked weights and the buffers, and has all other trained parameters."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "meet"), 1), rank=0, world_size=1)
    try:
        model = trainable()
        optimizer = build_optimizer(model, OptimConfig())
        wrapped = distribute(Objective(model, METHOD), optimizer, ProcessGroup(0, 2, torch.device("cpu")))
    finally:
        dist.destroy_process_group()
    assert isinstance(wrapped, DistributedDataParallel)
    parameters, _ = wrapped._build_params_for_reducer()
    left_out = {
        name
        for name, p in wrapped.module.named_parameters()
        if p.requires_grad and id(p) not in set(map(id, parameters))
    }
    assert left_out == {"head.blocks.0.mlp.weight", "head.blocks.1.mlp.weight"}
    assert not list(wrapped.modules_buffers)


def test_one_process_is_left_as_it_is() -> None:
    """With a single process nothing is wrapped or communicated."""
    world = ProcessGroup(0, 1, torch.device("cpu"))
    model = trainable()
    objective = Objective(model, METHOD)
    assert distribute(objective, build_optimizer(model, OptimConfig()), world) is objective
    assert world.any(True)
    assert not world.any(False)
    assert world.gather("x") == ["x"]
    assert world.leads


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without its own GPU raises, before anything hangs."""
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(ConfigError, match=r"run\.device=cuda"), joined("cuda"):
        pass
