"""Stage "clip": frames through the image tower, by each way there is to run it."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast.clip import ClipTowers, transformer
from mote_fast.clip.mlp import run_mlp
from mote_fast.ops.attention import attend
from stages.peaks import gemm
from stages.setting import INT8, Setting, weight_bytes
from stages.workload import EQUAL, RELEASED, Arm, Workload

UNTRIMMED, PLAIN_MLP = "untrimmed, fused MLP", "trimmed, plain MLP"
# int8 is another function, near the float one: its features' cosine is what counts, and is printed.
TOLERANCES = {INT8: 0.2}


def clip(setting: Setting) -> list[Workload]:
    """The image tower over one view and over three."""
    return [tower(setting, views) for views in setting.view_counts]


def tower_name(frames: int) -> str:
    """The name of the workload over so many frames."""
    return f"image tower, {frames} frames"


def tower(setting: Setting, views: int) -> Workload:
    """The image tower over ``views`` views of T frames, a float32 product of its shape beside it."""
    towers = setting.model.clip
    count = views * setting.frames
    pixels = setting.random(count, 3, towers.image_size, towers.image_size)
    moved = weight_bytes(towers.model.visual) + pixels.nbytes + count * towers.embed_dim * pixels.itemsize

    def arm(name: str, encode: Callable[[Tensor], Tensor], *, trimmed: bool, preparation: float = 0.0) -> Arm:
        @torch.no_grad()
        def call() -> Tensor:
            return encode(pixels)

        return Arm(
            name,
            call,
            views,
            flops=setting.image_flops(count, trimmed=trimmed),
            nbytes=moved,
            tolerance=TOLERANCES.get(name, EQUAL),
            preparation=preparation,
        )

    arms = [
        arm(RELEASED, towers.model.encode_image, trimmed=False),
        arm("mote_fast", towers.encode_frames, trimmed=towers.is_plain_vision_tower),
    ]
    if towers.is_plain_vision_tower:
        arms.append(arm(UNTRIMMED, lambda pixels: encode_untrimmed(towers, pixels), trimmed=False))
        arms.append(arm(PLAIN_MLP, lambda pixels: encode_with_plain_mlp(towers, pixels), trimmed=True))
    for name, (model, seconds) in setting.prepared.items():
        arms.append(arm(name, model.encode_frames, trimmed=towers.is_plain_vision_tower, preparation=seconds))
    arms.append(gemm(*setting.tower_rows(count), setting.device, setting.dtype))
    note = f"{count} frames; the peak is that of {'float32' if setting.dtype == torch.float32 else 'the same dtype'}"
    return Workload("clip", tower_name(count), arms, setting.rounds(3), warmup=1, note=note)


def encode_untrimmed(towers: ClipTowers, pixels: Tensor) -> Tensor:
    """``ClipTowers.encode_frames`` with its last block run for every token."""
    visual = towers.model.visual
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat((visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x), dim=1)
    x = visual.ln_pre(x + visual.positional_embedding.to(x.dtype))
    for block in visual.transformer.resblocks:
        attn = block.attn
        qkv = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias).unflatten(-1, (3, attn.num_heads, -1))
        x = x + attn.out_proj(attend(*qkv.unbind(2), backend=towers.attention).flatten(-2))
        x = x + run_mlp(block.mlp, block.ln_2(x))
    return visual.ln_post(x[:, 0]) @ visual.proj


def encode_with_plain_mlp(towers: ClipTowers, pixels: Tensor) -> Tensor:
    """``ClipTowers.encode_frames`` with open_clip's own MLP."""
    with patch.object(transformer, "run_mlp", _plain_mlp):
        return towers.encode_frames(pixels)


def _plain_mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    return mlp(x)
