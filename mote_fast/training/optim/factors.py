"""Factored expert gradients: a backward pass gives the optimiser two rows instead of a gradient of every expert.

The gradient of expert i is ``weights[i] * G + [i == index] * g``, with G the gradient of the merged row and g that of
the routed one (eq. (11)). Keeping ``rows = (g, G)`` costs 2 P values for any E; the dense form costs E P.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mote_fast.ops.implementations import launchers_for


@dataclass
class Factor:
    """The gradient of one layer's experts from one backward pass.

    ``probe`` is the autograd leaf whose ``.grad`` holds the rows, [2, P]: g of the routed expert, then G of the merged.
    ``route`` has the merge weights [E] and the index, int64 scalar, of the forward pass.
    """

    probe: Tensor
    route: list[Tensor]

    @property
    def weights(self) -> Tensor:
        """The merge weights [E]."""
        return self.route[0]

    @property
    def index(self) -> Tensor:
        """The routed expert, int64 scalar."""
        return self.route[1]

    @property
    def rows(self) -> Tensor:
        """The rows (g, G), [2, P]."""
        assert self.probe.grad is not None
        return self.probe.grad

    def shares(self) -> Tensor:
        """[2, E]: the share of each row in every expert's gradient, which is ``shares.T @ rows``."""
        experts = torch.arange(self.weights.shape[0], device=self.weights.device)
        return torch.stack(((experts == self.index).to(self.weights.dtype), self.weights))


def stays_factored(experts: int, passes: int) -> bool:
    """Whether so many passes keep their factors: beyond, the rows of all outweigh the dense gradient."""
    return 2 * passes <= max(experts, 2)


class Collector:
    """Gathers the factors of one layer's experts over the backward passes of a step.

    Args:
        weight: the experts' parameter, [E, P].
        changed: called with the collector after factors were added.
        keep_leaves: let later forward passes use the leaves of cleared factors again, so that a captured step makes
            none. Each forward pass then has one backward pass, before ``clear``.
    """

    def __init__(self, weight: Tensor, changed: Callable[[Collector], None], *, keep_leaves: bool = False) -> None:
        self.weight = weight
        self.factors: list[Factor] = []
        self._changed = changed
        self._keep_leaves = keep_leaves
        self._free: list[Factor] = []

    def probe(self, weights: Tensor, index: Tensor) -> Tensor:
        """The leaf that one forward pass gives to ``operators.expert_pair_ffn``; it receives the gradient."""
        if self._free:
            used = self._free.pop()
            used.route[:] = weights, index
            return used.probe
        # One expanded value: a leaf must have its gradient's shape, but needs no memory.
        probe = torch.empty(1, dtype=self.weight.dtype, device=self.weight.device)
        probe = probe.expand(2, self.weight.shape[1]).requires_grad_()
        # The leaf owns its hook: references back would be cycles that the garbage collector cannot see.
        collector, route = weakref.ref(self), [weights, index]

        def receive(leaf: Tensor) -> None:
            if (me := collector()) is not None:
                me._receive(Factor(leaf, route))

        probe.register_post_accumulate_grad_hook(receive)
        return probe

    def _receive(self, factor: Factor) -> None:
        # A second backward pass through a retained graph adds to the rows of the same leaf.
        if all(known.probe is not factor.probe for known in self.factors):
            self.factors.append(factor)
        if not stays_factored(self.weight.shape[0], len(self.factors)):
            self.densify()
        self.settle()
        self._changed(self)

    def settle(self) -> None:
        """Keep one form only: if there is a dense gradient, add the factors to it."""
        if self.weight.grad is not None and self.factors:
            self.densify()

    @torch.no_grad()
    def densify(self) -> None:
        """Turn the factors into the dense gradient ``weight.grad`` [E, P], or add them to it."""
        for factor in self.factors:
            g, merged = factor.rows
            if self.weight.grad is None:
                expand = launchers_for("merge", merged).expand_expert_gradient
                self.weight.grad = expand(merged, g, factor.weights, factor.index)
            else:
                self.weight.grad.addcmul_(factor.weights.to(merged.dtype)[:, None], merged)
                self.weight.grad.index_add_(0, factor.index.reshape(1), g[None])
        self.clear()

    def clear(self) -> None:
        """Drop the factors."""
        for factor in self.factors:
            factor.probe.grad = None
        if self._keep_leaves:
            self._free += self.factors
        self.factors.clear()


def square_norm(factors: list[Factor]) -> Tensor:
    """The squared Frobenius norm of the gradient [E, P] of all experts, from dot products of the rows alone."""
    # The gradient is shares.T @ rows, so its square norm is the sum over (shares shares.T) * (rows rows.T).
    shares = torch.cat([factor.shares() for factor in factors]).float()
    rows = [row for factor in factors for row in factor.rows]
    # Dots, and each pair once: a product of matrices may run in TensorFloat32, whose rounding the norm would show.
    dots = {(i, j): torch.dot(rows[i], rows[j]).float() for j in range(len(rows)) for i in range(j + 1)}
    pairs = [dots[min(i, j), max(i, j)] for i in range(len(rows)) for j in range(len(rows))]
    products = torch.stack(pairs).view(len(rows), len(rows))
    return (shares @ shares.t() * products).sum().clamp_min(0)
