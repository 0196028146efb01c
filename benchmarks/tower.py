"""Stages "clip" and "clip-train": frames through the image tower, by each way there is to run it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import flops
import torch
from harness import BFLOAT16, EQUAL, OFFICIAL, OURS, SIXTEEN_BIT, Arm, Workload, gemm, measure
from peers import ONNX_RUNTIME, TRANSFORMERS, peers
from rows import Row
from setting import INT8, OPENVINO, Setting
from torch import Tensor, nn

from mote_fast.clip import ClipTowers, transformer
from mote_fast.clip.mlp import run_mlp
from mote_fast.ops import products
from mote_fast.ops.attention import attend
from mote_fast.ops.products import Serving, linear, run_linear, serving

TOWER = "image tower, frames"
# Our tower with float32 products by PyTorch's own library.
OWN_BLAS = "mote_fast, F.linear"
UNTRIMMED, PLAIN_MLP, TRIMMED = "untrimmed, fused MLP", "trimmed, plain MLP", "trimmed, plain MLP, F.linear"
# int8 is another function, near the float one: its features' cosine is what counts, and is shown.
TOLERANCES: dict[str, float | None] = {INT8: 0.2, OPENVINO: 0.2, BFLOAT16: SIXTEEN_BIT, TRANSFORMERS: None}


def clip(setting: Setting) -> Iterator[Row]:
    """The image tower over the frames of one view and of a whole video, a product of its shape beside it."""
    towers, vision = setting.model.clip, setting.model.clip.config.model["vision_cfg"]
    others, other_ways = list(peers(setting)), ways_of_products(setting)
    for views in setting.view_counts:
        count = views * setting.frames
        arms = tower_arms(setting, count)
        ways = {
            UNTRIMMED: (encode_untrimmed, False),
            PLAIN_MLP: (encode_with_plain_mlp, True),
            TRIMMED: (encode_trimmed_alone, True),
        }
        for name, (encode, trimmed) in ways.items() if towers.is_plain_vision_tower else ():
            arms.append(tower_arm(setting, name, partial(encode, towers), count, trimmed))
        arms += [tower_arm(setting, name, encode, count, trimmed) for name, (encode, trimmed) in other_ways.items()]
        for name, encode, seconds in others:
            arms.append(tower_arm(setting, name, encode, count, name == ONNX_RUNTIME, seconds))
        for name, (model, seconds) in setting.prepared.items():
            arms.append(tower_arm(setting, name, model.encode_frames, count, towers.is_plain_vision_tower, seconds))
        tokens = (towers.image_size // vision["patch_size"]) ** 2 + 1
        arms.append(gemm(count * tokens, vision["width"], setting, count))
        yield from measure(Workload("clip", TOWER, arms, 3, warmup=1), setting)


def clip_train(setting: Setting) -> Iterator[Row]:
    """Stage "clip-train": the image tower forward and backward over the frames of one view, in float32."""
    towers = copy.deepcopy(setting.model.clip).float()
    pixels = setting.random(setting.frames, 3, towers.image_size, towers.image_size).float()
    ways = {OFFICIAL: towers.model.encode_image, OURS: towers.encode_frames}
    if setting.device.type == "cpu":
        ways[OWN_BLAS] = towers.encode_frames
    arms = [Arm(name, partial(_gradient, name, encode, pixels), setting.frames, 1) for name, encode in ways.items()]
    yield from measure(Workload("clip-train", "image tower trained, frames", arms, 3, warmup=1), setting)


@torch.enable_grad()
def _gradient(name: str, encode: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """The gradient of the pixels, as those of all weights are computed beside it."""
    pixels = pixels.detach().requires_grad_()
    found = serving()
    # The backward products ask too.
    with patch.object(products, "serving", lambda: Serving(found.by_onednn and name != OWN_BLAS, found.why)):
        encode(pixels).square().sum().backward()
    assert pixels.grad is not None
    return pixels.grad


def ways_of_products(setting: Setting) -> dict[str, tuple[Callable[[Tensor], Tensor], bool]]:
    """Our tower by other matrix products, where the run is in float32 on the CPU; and whether each is trimmed."""
    towers = setting.model.clip
    if setting.device.type != "cpu" or setting.dtype != torch.float32:
        return {}
    reduced = copy.deepcopy(towers).to(torch.bfloat16)
    return {
        OWN_BLAS: (partial(encode_with_own_blas, towers), towers.is_plain_vision_tower),
        BFLOAT16: (lambda pixels: reduced.encode_frames(pixels.bfloat16()), towers.is_plain_vision_tower),
    }


def tower_arms(setting: Setting, count: int) -> list[Arm]:
    """The official tower and ours over ``count`` frames."""
    towers = setting.model.clip
    return [
        tower_arm(setting, OFFICIAL, towers.model.encode_image, count, False),
        tower_arm(setting, OURS, towers.encode_frames, count, towers.is_plain_vision_tower),
    ]


def tower_arm(
    setting: Setting, name: str, encode: Callable[[Tensor], Tensor], count: int, trimmed: bool, spent: float = 0.0
) -> Arm:
    """One way to run the tower; ``trimmed`` runs the last block for the class token alone."""
    towers, vision = setting.model.clip, setting.model.clip.config.model["vision_cfg"]
    pixels = setting.random(count, 3, towers.image_size, towers.image_size)
    weights = sum(parameter.nbytes for parameter in towers.model.visual.parameters())
    patch_size, width, layers = (vision[key] for key in ("patch_size", "width", "layers"))
    work = flops.image_tower(count, towers.image_size, patch_size, width, layers, towers.embed_dim, trimmed=trimmed)
    return Arm(
        name,
        torch.no_grad()(partial(encode, pixels)),
        count,
        count / setting.frames,
        flops=work,
        nbytes=weights + pixels.nbytes + count * towers.embed_dim * pixels.itemsize,
        tolerance=TOLERANCES.get(name, EQUAL),
        preparation=spent,
    )


def encode_untrimmed(towers: ClipTowers, pixels: Tensor) -> Tensor:
    """``ClipTowers.encode_frames`` with its last block run for every token."""
    visual = towers.model.visual
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat((visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x), dim=1)
    x = visual.ln_pre(x + visual.positional_embedding.to(x.dtype))
    for block in visual.transformer.resblocks:
        attn = block.attn
        qkv = linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias).unflatten(-1, (3, attn.num_heads, -1))
        x = x + run_linear(attn.out_proj, attend(*qkv.unbind(2), backend=towers.attention).flatten(-2))
        x = x + run_mlp(block.mlp, block.ln_2(x))
    return visual.ln_post(x[:, 0]) @ visual.proj


def encode_with_own_blas(towers: ClipTowers, pixels: Tensor) -> Tensor:
    """``ClipTowers.encode_frames`` without oneDNN's products."""
    with patch.object(products, "serving", lambda: Serving(False, "asked for")):
        return towers.encode_frames(pixels)


def encode_with_plain_mlp(towers: ClipTowers, pixels: Tensor) -> Tensor:
    """``ClipTowers.encode_frames`` with open_clip's own MLP, its products as ours."""

    def plain(mlp: nn.Sequential, x: Tensor) -> Tensor:
        for layer in mlp:
            x = run_linear(layer, x)
        return x

    with patch.object(transformer, "run_mlp", plain):
        return towers.encode_frames(pixels)


def encode_trimmed_alone(towers: ClipTowers, pixels: Tensor) -> Tensor:
    """``ClipTowers.encode_frames`` with open_clip's own MLP, and without oneDNN's products."""
    with patch.object(transformer, "run_mlp", lambda mlp, x: mlp(x)):
        return encode_with_own_blas(towers, pixels)
