"""The mixture of temporal experts of one layer: stacked weights, merging, folding (eq. (5) to eq. (13))."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from mote_fast.errors import BackendError, ConfigError
from mote_fast.kernels.reference import EXPANSION, Expert, expert_size, quick_gelu, unpack_expert
from mote_fast.ops import operators
from mote_fast.ops.products import linear, run_linear
from mote_fast.runtime.checks import check_choice

# Whether each expert has its own initial draw or all share one (paper Table 2a).
ExpertInit = Literal["different", "same"]

INIT_STD = 0.02


class GradientCollector(Protocol):
    """Takes factored expert gradients of ``weight``; ``mote_fast.training.optim`` has the one in use."""

    weight: Tensor

    def probe(self, weights: Tensor, index: Tensor) -> Tensor:
        """Return the leaf [2, P] for one call of ``operators.expert_pair_ffn``; see there."""
        ...


class FeedForward(nn.Module):
    """A plain FFN of width d, hidden width 4d, with QuickGELU: the baseline, and the form of folded experts."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(embed_dim, EXPANSION * embed_dim)
        self.down = nn.Linear(EXPANSION * embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights from N(0, 0.02) and zero the biases."""
        for layer in (self.up, self.down):
            nn.init.normal_(layer.weight, std=INIT_STD)
            nn.init.zeros_(layer.bias)

    @property
    def experts(self) -> int:
        """One: a mixture of one expert computes the same."""
        return 1

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x [..., d]`` to the same shape."""
        return run_linear(self.down, quick_gelu(run_linear(self.up, x)))

    def routed(self, x: Tensor, index: Tensor) -> Tensor:
        """The routed stream; one FFN serves every ``index``."""
        del index
        return self(x)

    def at_temperature(self, x: Tensor, temperature: float | Tensor) -> Tensor:
        """The merged stream; one FFN serves every ``temperature``."""
        del temperature
        return self(x)

    def fold(self) -> FeedForward:
        """Return the FFN itself: there is nothing to merge."""
        return self

    def pair(self, x_routed: Tensor, x_merged: Tensor, expert: int | Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Both training streams; one FFN serves both, so ``expert`` and ``weights`` are ignored."""
        del expert, weights
        return self(x_routed), self(x_merged)


class TemporalExperts(nn.Module):
    """E expert FFNs as one parameter ``weight [E, P]``, one row per expert (layout: ``kernels/reference.py``).

    ``fusion [E]`` is the stored fusion vector: at inference the experts are averaged with weights
    ``softmax(fusion)``. It is a buffer, zero unless a checkpoint says otherwise (a uniform average), one per layer.
    """

    fusion: Tensor

    def __init__(self, embed_dim: int, experts: int, init: ExpertInit = "different") -> None:
        super().__init__()
        check_choice("expert_init", init, ExpertInit)
        if experts < 1:
            raise ConfigError(f"experts must be at least 1, got {experts}")
        self.embed_dim = embed_dim
        self.init: ExpertInit = init
        self.weight = nn.Parameter(torch.empty(experts, expert_size(embed_dim)))
        self.register_buffer("fusion", torch.zeros(experts))
        self._collector: weakref.ref[GradientCollector] | None = None
        self.reset_parameters()

    def __getstate__(self) -> dict[str, Any]:
        # A copied module must not report gradients to the original's optimiser.
        return {**self.__dict__, "_collector": None}

    @property
    def experts(self) -> int:
        """E, the number of experts."""
        return self.weight.shape[0]

    def reset_parameters(self) -> None:
        """Draw weights from N(0, 0.02) and zero the biases; every expert has its own draw unless ``init`` is "same"."""
        with torch.no_grad():
            self.weight.zero_()
            stacked = unpack_expert(self.weight, self.embed_dim)
            stacked.w_up.normal_(std=INIT_STD)
            stacked.w_down.normal_(std=INIT_STD)
            if self.init == "same":
                self.weight[1:] = self.weight[0]
            self.fusion.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Inference: run the merged expert on ``x [..., d]`` (eq. (13))."""
        return run_expert(x, unpack_expert(self.merged(), self.embed_dim))

    def merged(self) -> Tensor:
        """Return the inference expert ``[P]``, merged with weights ``softmax(fusion)``."""
        return operators.merge_experts(self.weight, self.fusion.float().softmax(-1))

    def pair(self, x_routed: Tensor, x_merged: Tensor, expert: int | Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Both training streams of one step: row ``expert`` on one input, the merge by ``weights`` on the other.

        Args:
            x_routed: [B, T, d].
            x_merged: [B, T, d].
            expert: index of the routed expert, in [0, E); a tensor (int64 scalar) is read on the device.
            weights: [E], from ``merge_weights``.
        """
        index = torch.as_tensor(expert, device=self.weight.device)
        return operators.expert_pair_ffn(x_routed, x_merged, self.weight, weights, index, self._probe(weights, index))

    def at_temperature(self, x: Tensor, temperature: float | Tensor) -> Tensor:
        """Run the merge at ``temperature`` alone on ``x [..., d]``; for both streams ``pair`` is faster."""
        weights = merge_weights(self.experts, temperature).to(self.weight.device)
        return run_expert(x, unpack_expert(operators.merge_experts(self.weight, weights), self.embed_dim))

    def collect_with(self, collector: GradientCollector) -> None:
        """Hand the gradients of ``pair`` to ``collector`` in factored form while the collector lives."""
        self._collector = weakref.ref(collector)

    def _probe(self, weights: Tensor, index: Tensor) -> Tensor | None:
        # A compiled step cannot make new leaves; its gradients are dense.
        if self._collector is None or torch.compiler.is_compiling():
            return None
        collector = self._collector()
        if collector is None or not (self.weight.requires_grad and torch.is_grad_enabled()):
            return None
        if collector.weight is not self.weight:
            raise BackendError(
                "the experts' weight was replaced after head_optimizer took it, as FSDP replaces it, which is not "
                "supported: make the optimiser last, and train with DistributedDataParallel"
            )
        return collector.probe(weights, index)

    def routed(self, x: Tensor, index: Tensor) -> Tensor:
        """Run each sample of ``x [B, ..., d]`` through the expert that ``index [B]`` names for it."""
        return operators.routed_ffn(x, self.weight, index)

    def fold(self) -> FeedForward:
        """Return a plain FFN that computes what inference computes; its weights are a copy."""
        return folded(self.merged(), self.embed_dim)


def run_expert(x: Tensor, expert: Expert) -> Tensor:
    """Run one expert on ``x [..., d]``: ``W_down QuickGELU(W_up x + b_up) + b_down`` (eq. (5))."""
    return linear(quick_gelu(linear(x, expert.w_up, expert.b_up)), expert.w_down, expert.b_down)


@torch.no_grad()
def folded(row: Tensor, embed_dim: int) -> FeedForward:
    """Return a plain FFN that holds a copy of one expert, ``row [P]``."""
    plain = FeedForward(embed_dim).to(row)
    expert = unpack_expert(row, embed_dim)
    plain.up.weight.copy_(expert.w_up)
    plain.up.bias.copy_(expert.b_up)
    plain.down.weight.copy_(expert.w_down)
    plain.down.bias.copy_(expert.b_down)
    return plain


def merge_weights(experts: int, temperature: float | Sequence[float] | Tensor) -> Tensor:
    """Return w [..., E], ``softmax([1..E] / temperature)`` of each temperature; infinity gives the plain average.

    Raises:
        ConfigError: a temperature is zero or not a number (values of a tensor are not checked).
    """
    if not isinstance(temperature, Tensor):
        for each in temperature if isinstance(temperature, Sequence) else (temperature,):
            if each == 0 or math.isnan(each):
                raise ConfigError(f"a merge temperature must be a non-zero number, got {each}")
        temperature = torch.tensor(temperature, dtype=torch.float32)
    order = torch.arange(1, experts + 1, dtype=torch.float32, device=temperature.device)
    return (order / temperature.float()[..., None]).softmax(-1)
