"""CLIP's transformer blocks over open_clip's modules, computing only what the pooled token needs.

open_clip runs every block for every token, although only the class token of the image tower's last block and the
end-of-text token of the text tower's last block are used. Here the last block computes keys and values for all tokens
and the rest for the pooled token alone: exact, and 6% less work on ViT-B/16.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from mote_fast.clip.mlp import run_mlp
from mote_fast.ops.attention import attend
from mote_fast.ops.products import linear, run_linear


class KeysValues(NamedTuple):
    """Keys and values of one block, each [N, L, H, h]."""

    keys: Tensor
    values: Tensor


def run_blocks(
    blocks: Sequence[ResidualAttentionBlock],
    x: Tensor,
    pooled: Tensor,
    *,
    mask: Tensor | None = None,
    past: Iterable[KeysValues] | None = None,
    backend: str = "sdpa",
) -> Tensor:
    """Run the whole tower and return the pooled token of each sequence.

    Args:
        blocks: the tower's blocks, at least one.
        x: [N, L, w], embedded tokens.
        pooled: int64 [N], the position of the token to return.
        mask: additive [L, P + L]; None attends everywhere.
        past: for each block, keys and values [N, P, H, h] of P earlier tokens that every query sees; taken one by one.
        backend: of attention, "sdpa" or "xformers".

    Returns:
        [N, w].
    """
    earlier = itertools.repeat(None) if past is None else past
    for depth, (block, before) in enumerate(zip(blocks, earlier, strict=False)):
        x = _attend_half(block, x, pooled if depth == len(blocks) - 1 else None, mask, before, backend)
        x = x + block.ls_2(run_mlp(block.mlp, block.ln_2(x)))
    return x.squeeze(1)


# A separate function, so that queries, keys and values are freed before the MLP allocates.
def _attend_half(
    block: ResidualAttentionBlock,
    x: Tensor,
    pooled: Tensor | None,
    mask: Tensor | None,
    past: KeysValues | None,
    backend: str,
) -> Tensor:
    """The attention half of a block, [N, L, w]; given ``pooled``, for that token of each sequence alone, [N, 1, w]."""
    normed = queried = block.ln_1(x)
    if pooled is not None:
        rows = torch.arange(x.shape[0], device=x.device)
        x, queried = x[rows, pooled, None], normed[rows, pooled, None]
        # Each sequence has one query, and needs its own row of the mask.
        mask = None if mask is None else mask[pooled][:, None, None, :]
    q, keys_values = _project(block, normed, queried)
    if past is not None:
        keys_values = KeysValues(*(torch.cat(pair, dim=1) for pair in zip(past, keys_values, strict=True)))
    return x + block.ls_1(_mix(block, q, keys_values, mask, backend))


def keys_values_of(
    blocks: Sequence[ResidualAttentionBlock], x: Tensor, *, mask: Tensor | None, backend: str = "sdpa"
) -> list[KeysValues]:
    """Return each block's keys and values for a shared prefix ``x [N, L, w]``, for the tokens that follow it."""
    cached: list[KeysValues] = []
    for depth, block in enumerate(blocks):
        normed = block.ln_1(x)
        q, keys_values = _project(block, normed, normed)
        cached.append(keys_values)
        if depth < len(blocks) - 1:
            x = x + block.ls_1(_mix(block, q, keys_values, mask, backend))
            x = x + block.ls_2(run_mlp(block.mlp, block.ln_2(x)))
    return cached


def _project(block: ResidualAttentionBlock, x: Tensor, queried: Tensor) -> tuple[Tensor, KeysValues]:
    """Project ``x [N, L, w]`` to keys and values, and ``queried [N, Lq, w]``, which may be ``x`` itself, to queries."""
    attn = block.attn
    if queried is x:
        q, k, v = linear(x, attn.in_proj_weight, attn.in_proj_bias).unflatten(-1, (3, attn.num_heads, -1)).unbind(2)
        return q, KeysValues(k, v)
    width = x.shape[-1]
    q = linear(queried, attn.in_proj_weight[:width], attn.in_proj_bias[:width]).unflatten(-1, (attn.num_heads, -1))
    k, v = (
        linear(x, attn.in_proj_weight[width:], attn.in_proj_bias[width:])
        .unflatten(-1, (2, attn.num_heads, -1))
        .unbind(2)
    )
    return q, KeysValues(k, v)


def _mix(block: ResidualAttentionBlock, q: Tensor, past: KeysValues, mask: Tensor | None, backend: str) -> Tensor:
    mixed = attend(q, past.keys, past.values, mask, backend=backend).flatten(-2)
    return run_linear(block.attn.out_proj, mixed)
