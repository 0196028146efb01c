"""Gradients averaged over two gloo processes: same updates as one process over both halves, and few bytes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from mote_fast import TrainingMethod, VideoHead, head_optimizer, training_loss
from mote_fast.errors import BackendError, ConfigError
from mote_fast.head.experts import TemporalExperts
from mote_fast.head.head_config import HeadConfig
from mote_fast.kernels.reference import expert_size
from mote_fast.training.optim.reduce import same_routes

WIDTH, EXPERTS, CLIPS = 16, 6, 4
PROCESSES = 2


def step(head: VideoHead, clips: slice, seed: int) -> None:
    """Backward over some clips of one fixed batch, with routing drawn from ``seed``."""
    generator = torch.Generator().manual_seed(0)
    frames, classes = torch.randn(CLIPS, 3, WIDTH, generator=generator), torch.randn(5, WIDTH, generator=generator)
    labels = torch.randint(5, (CLIPS,), generator=generator)
    drawn = torch.Generator().manual_seed(seed)
    training_loss(head, frames[clips], classes, labels[clips], 10.0, generator=drawn).total.backward()


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    cases = [(synchronised, early) for synchronised in (True, False) for early in (True, False)]
    found = {(synchronised, early): average(rank, synchronised, early) for synchronised, early in cases}
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def average(rank: int, synchronised: bool, early: bool) -> tuple[list[int], int, float]:
    """The number of values in each all-reduce of a step, how many of them the backward pass began, and the step's
    distance from that of one process.
    """
    torch.manual_seed(0)
    head = VideoHead(HeadConfig(WIDTH, 2, 2, EXPERTS))
    reference = copy.deepcopy(head)
    optimizer = head_optimizer(head, 1e-2)
    seeds = [7, 7] if synchronised else [7, 8]
    share = CLIPS // PROCESSES
    carried: list[int] = []
    all_reduce = dist.all_reduce

    def counting(tensor: torch.Tensor, *args: object, **kwargs: object) -> object:
        carried.append(tensor.numel())
        return all_reduce(tensor, *args, **kwargs)

    if early:
        draws = TrainingMethod().draw(2, EXPERTS, torch.Generator().manual_seed(seeds[rank]))
        agreed = same_routes([draws], 2)
        # Of the seeds of two processes that draw apart, no layer agrees by chance.
        assert agreed == [synchronised] * 2
        optimizer.average_in_backward(agreed)
    dist.all_reduce = counting
    step(head, slice(rank * share, (rank + 1) * share), seeds[rank])
    begun = len(carried)
    optimizer.all_reduce_gradients()
    dist.all_reduce = all_reduce
    optimizer.step()
    for other in range(PROCESSES):
        step(reference, slice(other * share, (other + 1) * share), seeds[other])
    for param in reference.parameters():
        assert param.grad is not None
        param.grad /= PROCESSES
    torch.optim.AdamW(reference.parameters(), 1e-2, weight_decay=0.2).step()
    error = max(
        float((a - b).norm() / b.norm()) for a, b in zip(head.parameters(), reference.parameters(), strict=True)
    )
    return carried, begun, error


@pytest.mark.heavy
def test_two_processes(tmp_path: Path) -> None:
    """With the same routing in all processes two rows per layer are sent; otherwise dense gradients. Routes that were
    compared before the pass let it send them itself.
    """
    multiprocessing.spawn(worker, (str(tmp_path),), nprocs=PROCESSES)
    for rank in range(PROCESSES):
        for (synchronised, early), (carried, begun, error) in torch.load(tmp_path / f"{rank}.pt").items():
            rows = 2 if synchronised else EXPERTS
            assert error < 1e-4
            assert max(carried) == rows * expert_size(WIDTH)
            assert carried.count(max(carried)) == 2
            # Both layers' gradients, the last layer's first, before the pass has come to the first parameters.
            assert carried[:begun] == ([rows * expert_size(WIDTH)] * 2 if early else [])


def test_experts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If DDP averages the dense gradients, only the experts' two rows per layer and their routes are sent."""
    torch.manual_seed(0)
    head = VideoHead(HeadConfig(WIDTH, 2, 2, EXPERTS))
    optimizer = head_optimizer(head, 1e-2)
    step(head, slice(0, CLIPS), 7)
    sent: list[int] = []
    all_reduce = dist.all_reduce

    def counting(tensor: torch.Tensor, *args: object, **kwargs: object) -> object:
        sent.append(tensor.numel())
        return all_reduce(tensor, *args, **kwargs)

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "meet"), 1), rank=0, world_size=1)
    try:
        monkeypatch.setattr(dist, "all_reduce", counting)
        optimizer.all_reduce_gradients(experts_only=True)
    finally:
        dist.destroy_process_group()
    assert len(optimizer.expert_weights) == 2
    assert sent[1:] == [2 * expert_size(WIDTH)] * 2
    assert sent[0] < expert_size(WIDTH)


def test_sharded_and_replaced_experts_are_refused() -> None:
    """FSDP shards parameters, or replaces them later: named, instead of training other weights than the run's."""
    head = VideoHead(HeadConfig(WIDTH, 2, 2, EXPERTS))
    optimizer = head_optimizer(head, 1e-2)
    with pytest.raises(ConfigError, match="each of 2 layers"):
        optimizer.average_in_backward([True])
    experts = head.temporal_blocks()[0].mlp
    assert isinstance(experts, TemporalExperts)
    experts.weight = torch.nn.Parameter(experts.weight.detach().clone())
    with pytest.raises(BackendError, match="FSDP"):
        step(head, slice(0, CLIPS), 7)
    vars(next(head.parameters()))["device_mesh"] = "of FSDP"
    with pytest.raises(BackendError, match="FSDP"):
        head_optimizer(head, 1e-2)
