"""A step of two gloo processes over several batches each: the gradients of one process over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing
from torch import distributed as dist

from mote_fast.data.loading.batch import Batch
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.training.build import build_optimizer
from mote_fast.training.config.sections import OptimConfig
from mote_fast.training.method import Draws
from mote_fast.training.step import Arithmetic, Objective, distribute, draws_of_step, train_step
from tests.tolerances import assert_close
from tests.training.test_step import CPU, METHOD, batches, trainable

PROCESSES, PASSES = 2, 2


def drawn(model: Any, synchronised: bool) -> list[list[Draws]]:
    """The draws of each process's passes."""
    ranks = [None if synchronised else rank for rank in range(PROCESSES)]
    return [draws_of_step(model.head, METHOD, PASSES, seed=0, step=0, rank=rank) for rank in ranks]


def step_of(model: Any, given: Sequence[Batch], draws: Sequence[Draws], world: ProcessGroup, sync: bool) -> Any:
    """The dense gradients that the update of one step sees, by parameter, and the losses."""
    optimizer = build_optimizer(model, OptimConfig())
    found: dict[str, Tensor] = {}

    def keep(*_: Any) -> None:
        for collector in optimizer.collectors.values():
            collector.densify()
        named = ((name, parameter.grad) for name, parameter in model.named_parameters())
        found.update((name, grad.clone()) for name, grad in named if grad is not None)

    optimizer.register_step_pre_hook(keep)
    objective = distribute(Objective(model, METHOD), optimizer, world)
    result = train_step(
        objective, optimizer, iter(given), draws, Arithmetic("fp32", CPU), world_size=world.size, sync_routing=sync
    )
    return found, result.losses


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    all_reduce, sent = dist.all_reduce, []

    def counting(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        sent.append(tensor.numel())
        return all_reduce(tensor, *args, **kwargs)

    saved = {}
    for synchronised in (True, False):
        model = trainable()
        mine = batches(PROCESSES * PASSES)[rank * PASSES :][:PASSES]
        world, draws = ProcessGroup(rank, PROCESSES, CPU), drawn(model, synchronised)[rank]
        sent.clear()
        dist.all_reduce = counting
        gradients, losses = step_of(model, mine, draws, world, synchronised)
        dist.all_reduce = all_reduce
        saved[synchronised] = gradients, losses, list(sent)
    torch.save(saved, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.heavy
def test_two_processes_of_two_passes(tmp_path: Path) -> None:
    """Experts are sent once a step, from the last pass: the rows of both passes, or dense where the draws differ."""
    multiprocessing.spawn(worker, (str(tmp_path),), nprocs=PROCESSES)
    saved = [torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES)]
    for synchronised in (True, False):
        model = trainable()
        draws = [each for part in drawn(model, synchronised) for each in part]
        whole, losses = step_of(model, batches(PROCESSES * PASSES), draws, ProcessGroup(0, 1, CPU), True)
        assert_close(torch.stack([part[synchronised][1] for part in saved]).mean(0), losses)
        experts, size = model.head.blocks[0].mlp.weight.shape
        for gradients, _, sent in (part[synchronised] for part in saved):
            assert gradients.keys() == whole.keys()
            for name, gradient in whole.items():
                assert_close(gradients[name], gradient)
            large = [count for count in sent if count >= size]
            each = [2 * size] * PASSES if synchronised else [experts * size]
            assert large == each * model.head.layers
            # Draws that may differ are compared once, on the host.
            assert len(sent) - len(large) == (0 if synchronised else 1)
