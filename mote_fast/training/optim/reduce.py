"""Averages gradients over processes; expert gradients stay factored if all processes had the same routing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from mote_fast.training.optim.factors import Collector


def average_gradients(tensors: Iterable[Tensor], group: dist.ProcessGroup | None) -> None:
    """Replace each tensor by its mean over the processes of ``group``; all in flight at once."""
    flights = []
    for tensor in tensors:
        flights.append((tensor, dist.all_reduce(tensor, group=group, async_op=True)))
    processes = dist.get_world_size(group)
    for tensor, flight in flights:
        assert flight is not None
        flight.wait()
        tensor.div_(processes)


def densify_where_routes_differ(collectors: Sequence[Collector], group: dist.ProcessGroup | None) -> None:
    """Make gradients dense for the layers whose factors do not share weights and index over all processes.

    Means of rows are rows of the mean gradient only if every process had the same merge and routing. One small
    all-reduce compares the routes of all layers.
    """
    if not collectors:
        return
    mine = [_route(collector) for collector in collectors]
    extremes = torch.cat([torch.cat(mine), -torch.cat(mine)])
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=group)
    largest, smallest = extremes.chunk(2)
    sizes = [len(route) for route in mine]
    # The comparison has the same result in every process, so all processes act alike.
    same = (largest == -smallest).tolist()
    for collector, size in zip(collectors, sizes, strict=True):
        agreed, same = all(same[:size]), same[size:]
        if not agreed:
            collector.densify()
            if collector.weight.grad is None:
                collector.weight.grad = torch.zeros_like(collector.weight)


def _route(collector: Collector) -> Tensor:
    """The properties that two processes' factors must share: form, number, weights, indices; one length per layer."""
    experts = collector.weight.shape[0]
    slots = max(experts // 2, 1)
    route = collector.weight.new_zeros(2 + slots * (experts + 1), dtype=torch.float32)
    route[0] = float(collector.weight.grad is not None)
    route[1] = float(len(collector.factors))
    for slot, factor in enumerate(collector.factors):
        start = 2 + slot * (experts + 1)
        route[start : start + experts] = factor.weights
        route[start + experts] = factor.index
    return route
