"""The other expert designs of the paper's Figure 5, and the function that builds a layer's FFN.

These run as plain PyTorch: they exist for comparison (Table 7a). The default design, whole FFNs, is
``mote_fast.head.experts.TemporalExperts``.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from mote_fast.errors import ConfigError
from mote_fast.head.experts import INIT_STD, ExpertInit, FeedForward, TemporalExperts, folded, merge_weights, run_expert
from mote_fast.kernels.reference import EXPANSION, Expert, pack_expert, quick_gelu
from mote_fast.ops.products import linear
from mote_fast.runtime.checks import check_choice

# What an expert is: a whole FFN; either projection, each routed on its own; or one of them, the other shared.
ExpertDesign = Literal["ffn", "up_down", "up", "down"]


class ProjectionExperts(nn.Module):
    """Experts that are single projections of the FFN, with the interface of ``TemporalExperts``.

    With E experts, "up_down" has E of each projection, routed separately; "up" has E up projections and one down
    projection for all of them; "down" the reverse. A merge averages each projection that has experts with the same
    weights. "up_down" uses a single expert index for both projections; an index pair (up, down) in the last dimension
    selects them separately.
    """

    fusion: Tensor

    def __init__(
        self, embed_dim: int, experts: int, design: Literal["up_down", "up", "down"], init: ExpertInit = "different"
    ) -> None:
        super().__init__()
        check_choice("expert_init", init, ExpertInit)
        if experts < 1:
            raise ConfigError(f"experts must be at least 1, got {experts}")
        self.embed_dim = embed_dim
        self.init: ExpertInit = init
        ups, downs = 1 if design == "down" else experts, 1 if design == "up" else experts
        hidden = EXPANSION * embed_dim
        self.up_weight = nn.Parameter(torch.empty(ups, hidden, embed_dim))
        self.up_bias = nn.Parameter(torch.empty(ups, hidden))
        self.down_weight = nn.Parameter(torch.empty(downs, embed_dim, hidden))
        self.down_bias = nn.Parameter(torch.empty(downs, embed_dim))
        self.register_buffer("fusion", torch.zeros(experts))
        self.reset_parameters()

    @property
    def experts(self) -> int:
        """E, the number of experts."""
        return self.fusion.shape[0]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights from N(0, 0.02) and zero the biases; every expert has its own draw unless ``init`` is "same"."""
        for weight in (self.up_weight, self.down_weight):
            weight.normal_(std=INIT_STD)
            if self.init == "same":
                weight[1:] = weight[0]
        for buffer in (self.up_bias, self.down_bias, self.fusion):
            buffer.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Inference: run the merged expert on ``x [..., d]`` (eq. (13))."""
        return run_expert(x, self._merge(self.fusion.float().softmax(-1)))

    def merged(self) -> Tensor:
        """Return the inference expert ``[P]``, merged with weights ``softmax(fusion)``."""
        return pack_expert(self._merge(self.fusion.float().softmax(-1)))

    def pair(self, x_routed: Tensor, x_merged: Tensor, expert: int | Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Both training streams of one step; see ``TemporalExperts.pair``.

        Args:
            x_routed: [B, T, d].
            x_merged: [B, T, d].
            expert: one index, or int64 [2] for the up and the down projection.
            weights: [E], from ``merge_weights``.
        """
        index = torch.as_tensor(expert, device=self.fusion.device)
        up, down = index.unbind(-1) if index.ndim == 1 else (index, index)
        up, down = self._rows(up, self.up_weight), self._rows(down, self.down_weight)
        routed = Expert(self.up_weight[up], self.up_bias[up], self.down_weight[down], self.down_bias[down])
        return run_expert(x_routed, routed), run_expert(x_merged, self._merge(weights))

    def at_temperature(self, x: Tensor, temperature: float | Tensor) -> Tensor:
        """Run the merge at ``temperature`` alone on ``x [..., d]``."""
        return run_expert(x, self._merge(merge_weights(self.experts, temperature).to(self.fusion.device)))

    def routed(self, x: Tensor, index: Tensor) -> Tensor:
        """Run each sample of ``x [B, ..., d]`` through the expert that ``index`` [B] or [B, 2] names for it."""
        up, down = index.unbind(-1) if index.ndim == 2 else (index, index)
        hidden = _grouped_linear(x, self._rows(up, self.up_weight), self.up_weight, self.up_bias)
        return _grouped_linear(quick_gelu(hidden), self._rows(down, self.down_weight), self.down_weight, self.down_bias)

    def fold(self) -> FeedForward:
        """Return a plain FFN that computes what inference computes; its weights are a copy."""
        return folded(self.merged(), self.embed_dim)

    def _merge(self, weights: Tensor) -> Expert:
        """Merge with ``weights [E]``; a shared projection stays as it is."""
        up = weights if len(self.up_weight) > 1 else weights.new_ones(1)
        down = weights if len(self.down_weight) > 1 else weights.new_ones(1)
        return Expert(
            _weighted_sum(up, self.up_weight),
            _weighted_sum(up, self.up_bias),
            _weighted_sum(down, self.down_weight),
            _weighted_sum(down, self.down_bias),
        )

    @staticmethod
    def _rows(index: Tensor, projection: Tensor) -> Tensor:
        """The rows of a projection for expert indices: their own, or the shared one."""
        return index if len(projection) > 1 else torch.zeros_like(index)


# The FFNs that a layer may have after attention.
LayerFFN: TypeAlias = TemporalExperts | ProjectionExperts | FeedForward


def make_experts(
    embed_dim: int, experts: int, design: ExpertDesign, init: ExpertInit
) -> TemporalExperts | ProjectionExperts:
    """Return the mixture of one layer.

    Raises:
        ConfigError: an unknown design or initialisation, or no experts.
    """
    check_choice("expert_design", design, ExpertDesign)
    if design == "ffn":
        return TemporalExperts(embed_dim, experts, init)
    return ProjectionExperts(embed_dim, experts, design, init)


def _weighted_sum(weights: Tensor, stacked: Tensor) -> Tensor:
    # A product and a sum, because autocast would run a matrix product in half precision and round the weights.
    shaped = weights.view(-1, *(1,) * (stacked.ndim - 1))
    return (shaped * stacked).sum(0).to(stacked.dtype)


def _grouped_linear(x: Tensor, index: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply row ``index[i]`` of a stack of linear maps to sample ``x[i]``, one product per row."""
    order = index.argsort(stable=True)
    sizes = index.bincount(minlength=len(weight)).tolist()
    parts = [linear(part, w, b) for part, w, b in zip(x[order].split(sizes), weight, bias, strict=True)]
    return torch.cat(parts)[order.argsort()]
