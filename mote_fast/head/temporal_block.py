"""One layer of the temporal transformer: attention over the frames of a view, then the FFN (eq. (4))."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast.head.expert_designs import LayerFFN
from mote_fast.head.experts import INIT_STD
from mote_fast.ops.products import linear, run_linear

LAYER_NORM_EPS = 1e-12


class TemporalAttention(nn.Module):
    """Full multi-head attention over the frames of a view; parameters have the names of nn.MultiheadAttention."""

    def __init__(self, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.normal_(self.out_proj.weight, std=INIT_STD)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x [B, T, d]`` to the same shape."""
        # Rows of frames, and one permutation for all: each view in between would be a node of autograd, which an eager
        # step's host pays for.
        batch, frames, width = x.shape
        qkv = linear(x.reshape(-1, width), self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(batch, frames, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind()
        attended = F.scaled_dot_product_attention(q, k, v)
        return run_linear(self.out_proj, attended.transpose(1, 2).reshape(-1, width)).view(x.shape)


class TemporalBlock(nn.Module):
    """One pre-norm layer: attention over frames, then the FFN, each with its residual."""

    mlp: LayerFFN

    def __init__(self, embed_dim: int, heads: int, mlp: LayerFFN) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.attn = TemporalAttention(embed_dim, heads)
        self.ln_2 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.mlp = mlp

    def attend(self, x: Tensor) -> Tensor:
        """The attention half: ``x + MHA(LN1(x))``, [B, T, d]."""
        return x + self.attn(self.ln_1(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x [B, T, d]`` to the same shape (inference)."""
        x = self.attend(x)
        return x + self.mlp(self.ln_2(x))
