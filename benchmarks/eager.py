"""The baseline of benchmarks/kernels.py: the head written as the released code runs it, in plain PyTorch.

One ``nn.Linear`` pair per expert, merged by a loop over experts at every step; ``nn.MultiheadAttention``; the two
training streams run one after the other; dense gradients for ``torch.optim.AdamW`` with its default arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast import Draws, training_loss
from mote_fast.head.experts import merge_weights
from mote_fast.head.temporal_block import LAYER_NORM_EPS
from mote_fast.head.video_head import VideoHead, cosine_logits
from mote_fast.kernels.reference import EXPANSION, unpack_expert


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class EagerExperts(nn.Module):
    """E separate FFNs; the merged stream sums their parameters one by one."""

    def __init__(self, embed_dim: int, experts: int) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(embed_dim, EXPANSION * embed_dim) for _ in range(experts))
        self.down = nn.ModuleList(nn.Linear(EXPANSION * embed_dim, embed_dim) for _ in range(experts))
        self.activation = QuickGELU()

    def routed(self, x: Tensor, expert: int) -> Tensor:
        return self.down[expert](self.activation(self.up[expert](x)))

    def merged(self, x: Tensor, weights: Tensor) -> Tensor:
        up_weight, up_bias = merge_linears(self.up, weights)
        down_weight, down_bias = merge_linears(self.down, weights)
        return F.linear(self.activation(F.linear(x, up_weight, up_bias)), down_weight, down_bias)


def merge_linears(linears: nn.ModuleList, weights: Tensor) -> tuple[Tensor | float, Tensor | float]:
    # The released loop starts from the number 0, so its first addition is a pass of its own.
    weight: Tensor | float = 0.0
    bias: Tensor | float = 0.0
    for share, linear in zip(weights, linears, strict=True):
        weight = weight + share * linear.weight
        bias = bias + share * linear.bias
    return weight, bias


class EagerBlock(nn.Module):
    def __init__(self, embed_dim: int, heads: int, experts: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.attn = nn.MultiheadAttention(embed_dim, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.mlp = EagerExperts(embed_dim, experts)

    def attend(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        return x + self.attn(y, y, y, need_weights=False)[0]


class EagerHead(nn.Module):
    """The same weights and the same ``streams`` as a ``VideoHead``."""

    def __init__(self, head: VideoHead) -> None:
        super().__init__()
        self.frame_positions = nn.Parameter(head.frame_positions.detach().clone())
        self.blocks = nn.ModuleList(
            EagerBlock(head.embed_dim, head.config.heads, head.experts) for _ in range(head.layers)
        )
        self.to(head.frame_positions)
        own = {key: value for key, value in head.state_dict().items() if ".mlp." not in key}
        self.load_state_dict(own, strict=False)
        with torch.no_grad():
            for mine, other in zip(self.blocks, head.blocks, strict=True):
                for expert, row in enumerate(other.mlp.weight):
                    values = unpack_expert(row, head.embed_dim)
                    mine.mlp.up[expert].weight.copy_(values.w_up)
                    mine.mlp.up[expert].bias.copy_(values.b_up)
                    mine.mlp.down[expert].weight.copy_(values.w_down)
                    mine.mlp.down[expert].bias.copy_(values.b_down)

    def loss(self, frames: Tensor, classes: Tensor, labels: Tensor, logit_scale: float, draws: Draws) -> Tensor:
        """Eq. (12), each stream by itself."""
        count = len(self.blocks[0].mlp.up)
        routed = merged = frames + self.frame_positions[: frames.shape[1]]
        for block, expert in zip(self.blocks, draws.experts, strict=True):
            routed = block.attend(routed)
            routed = routed + block.mlp.routed(block.ln_2(routed), expert)
        for block, temperature in zip(self.blocks, draws.temperatures, strict=True):
            weights = merge_weights(count, temperature).to(frames.device)
            merged = block.attend(merged)
            merged = merged + block.mlp.merged(block.ln_2(merged), weights)
        routed, merged = routed + frames, merged + frames
        losses = [
            F.cross_entropy(logit_scale * cosine_logits(stream, classes).float(), labels) for stream in (routed, merged)
        ]
        return losses[0] + 0.5 * losses[1] + 0.1 * F.mse_loss(merged, frames)


def loss_of(
    head: VideoHead | EagerHead, frames: Tensor, classes: Tensor, labels: Tensor, logit_scale: float, draws: Draws
) -> Tensor:
    """The objective of either head."""
    if isinstance(head, EagerHead):
        return head.loss(frames, classes, labels, logit_scale, draws)
    return training_loss(head, frames, classes, labels, logit_scale, draws=draws).total
