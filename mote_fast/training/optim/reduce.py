"""Averages gradients over processes; expert gradients stay factored if all processes had the same routing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from mote_fast.training.method import Draws
from mote_fast.training.optim.factors import Collector


class Averages:
    """Means of tensors over the processes of a group, each begun as soon as its tensor is complete.

    Args:
        group: the processes; None takes all, which begin the same tensors in the same order.
        agreed: for each layer's experts, whether all processes have the same routes; None if nobody has compared them.
    """

    def __init__(self, group: dist.ProcessGroup | None, agreed: Sequence[bool] | None = None) -> None:
        self.group, self.agreed = group, agreed
        self._flights: list[tuple[Tensor, dist.Work | None]] = []
        self._begun: set[int] = set()

    def begin(self, tensors: Iterable[Tensor]) -> None:
        """Send tensors on their way; they may not be used before ``finish``."""
        for tensor in tensors:
            self._flights.append((tensor, dist.all_reduce(tensor, group=self.group, async_op=True)))

    def begin_experts(self, collector: Collector, number: int) -> None:
        """Send the gradient of layer ``number`` on its way, once: two rows if the processes agree, or else all."""
        if number in self._begun:
            return
        self._begun.add(number)
        assert self.agreed is not None
        collector.settle()
        if not self.agreed[number] and collector.weight.requires_grad:
            make_dense(collector)
        dense = collector.weight.grad
        self.begin([factor.rows for factor in collector.factors] if dense is None else [dense])

    def finish(self) -> None:
        """Replace each tensor by its mean."""
        processes = dist.get_world_size(self.group)
        for tensor, flight in self._flights:
            assert flight is not None
            flight.wait()
            tensor.div_(processes)
        self._flights.clear()


def same_routes(draws: Sequence[Draws], layers: int, group: dist.ProcessGroup | None = None) -> list[bool]:
    """Whether all processes drew the same experts and temperatures for a step, for each layer.

    Compared on the host, before the first pass: gloo sends a few numbers, and no GPU is waited for.

    Args:
        draws: this process's draws, one entry for each pass, as numbers.
        layers: L.
        group: the processes; None takes all.
    """
    mine = torch.tensor(
        [
            [float(part[layer]) for each in draws for part in (each.experts, each.temperatures)]
            for layer in range(layers)
        ],
        dtype=torch.float64,
    )
    extremes = torch.stack((mine, -mine))
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=group)
    return (extremes[0] == -extremes[1]).flatten(1).all(1).tolist()


def make_dense(collector: Collector) -> None:
    """Give a layer's experts a dense gradient, of zeros if they have none: every process must send one."""
    collector.densify()
    if collector.weight.grad is None:
        collector.weight.grad = torch.zeros_like(collector.weight)


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
            make_dense(collector)


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
