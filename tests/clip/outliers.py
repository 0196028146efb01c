"""Towers as trained ones look: a few channels of every LayerNorm are far larger than the others."""

from __future__ import annotations

import copy

import torch

from mote_fast.clip import ClipTowers


@torch.no_grad()
def with_outliers(towers: ClipTowers, factor: float, channels: int = 6, seed: int = 0) -> ClipTowers:
    """Multiply some channels of every LayerNorm before a matrix, and divide the matrix: the same function.

    Factor 0 makes dead channels instead, which is another function.
    """
    twin = copy.deepcopy(towers)
    visual, dice = twin.model.visual, torch.Generator().manual_seed(seed)
    pairs = [(visual.ln_post, visual.proj.T)]
    for block in visual.transformer.resblocks:
        pairs += [(block.ln_1, block.attn.in_proj_weight), (block.ln_2, block.mlp.c_fc.weight)]
    for norm, matrix in pairs:
        chosen = torch.randperm(matrix.shape[1], generator=dice)[:channels]
        norm.weight[chosen] *= factor
        norm.bias[chosen] *= factor
        matrix[:, chosen] /= factor or 1.0
    return twin
