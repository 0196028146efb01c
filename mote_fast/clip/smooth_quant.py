"""SmoothQuant for CLIP's image tower: large channels become smaller and the matrices behind them larger, before both
are quantised.

One scale serves all channels of the tokens that enter a matrix product. In trained towers a few channels are tens of
times larger than the others, which are then left with a few of the 256 levels. A LayerNorm multiplies every channel by
a weight, so that a channel can be divided by a factor there and the matrix's column multiplied by it.

Xiao et al., SmoothQuant, ICML 2023 (arXiv 2211.10438), eq. (4) with alpha = 1/2.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mote_fast.clip.towers import ClipTowers

# Frames per pass of the calibration; bounds memory.
_FRAMES_AT_ONCE = 8
# Factors beyond it and its inverse are cut: float32 has room for both sides, and no trained channel comes near.
_LARGEST_FACTOR = 1e12


class _Pair(NamedTuple):
    """A LayerNorm, and the matrix [outputs, w] that multiplies its output."""

    norm: nn.LayerNorm
    matrix: Tensor


@torch.no_grad()
def smoothed(towers: ClipTowers, pixels: Tensor) -> ClipTowers:
    """Return towers with the same image features, with channels as large as the columns that multiply them.

    Args:
        towers: towers with CLIP's own image tower (``is_plain_vision_tower``); they are not changed.
        pixels: float32 [N, 3, S, S], normalised; frames that show how large the channels become.

    Returns:
        Towers that share the text tower with ``towers``. Their image features are equal up to float32's rounding.
    """
    state = towers.model.named_parameters()
    shared = {id(value): value for name, value in state if not name.startswith("visual.")}
    towers = copy.deepcopy(towers, shared)
    largest = _largest_channels(towers, pixels)
    for norm, matrix in _pairs(towers.model.visual):
        factors = _factors(largest[norm], matrix.abs().amax(0))
        for parameter in norm.parameters():
            parameter.div_(factors)
        matrix.mul_(factors)
    return towers


def _pairs(visual: Any) -> list[_Pair]:
    pairs = [_Pair(visual.ln_post, visual.proj.T)]
    for block in visual.transformer.resblocks:
        pairs += [_Pair(block.ln_1, block.attn.in_proj_weight), _Pair(block.ln_2, block.mlp.c_fc.weight)]
    # A LayerNorm without weights has nothing to divide.
    return [pair for pair in pairs if pair.norm.elementwise_affine]


def _largest_channels(towers: ClipTowers, pixels: Tensor) -> dict[nn.Module, Tensor]:
    """Return the largest magnitude [w] of each channel that the LayerNorms of pairs give for the frames."""
    largest: dict[nn.Module, Tensor] = {}

    def record(norm: nn.Module, _: object, output: Tensor) -> None:
        found = output.abs().flatten(0, -2).amax(0)
        largest[norm] = torch.maximum(largest[norm], found) if norm in largest else found

    hooks = [norm.register_forward_hook(record) for norm, _ in _pairs(towers.model.visual)]
    for part in pixels.split(_FRAMES_AT_ONCE):
        towers.run_vision_tower(part)
    for hook in hooks:
        hook.remove()
    return largest


def _factors(channels: Tensor, columns: Tensor) -> Tensor:
    """Return sqrt(channel / column), [w]; 1 for a channel or a column of zeros."""
    known = (channels > 0) & (columns > 0)
    return torch.where(known, (channels / columns).sqrt(), 1.0).clamp(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
