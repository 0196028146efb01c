"""Frames to features of every image patch, which classification does not need and never computes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.clip.towers import ClipTowers
from mote_fast.errors import ConfigError


class FrameTokens(NamedTuple):
    """Features of frames and of their patches."""

    frames: Tensor  # [N, d], as ``ClipTowers.encode_frames`` gives them
    patches: Tensor  # [N, rows, columns, d], in the same space


@torch.inference_mode()
def encode_patches(towers: ClipTowers, pixels: Tensor) -> FrameTokens:
    """Encode frames and their patches in one pass through all blocks.

    A patch's feature is its token of the last block after the layer norm and the projection of the class token; it is
    therefore in the space of frame and class features.

    Args:
        towers: towers with an image tower of CLIP's own architecture.
        pixels: [N, 3, S, S], normalised, in the towers' dtype.

    Raises:
        ConfigError: the image tower has another architecture, without a class token or with its own pooler.
    """
    if not towers.is_plain_vision_tower:
        raise ConfigError("attention maps need an image tower of CLIP's own architecture, such as ViT-B-16")
    visual = towers.model.visual
    found = visual.forward_intermediates(pixels, indices=1, normalize_intermediates=True, output_fmt="NCHW")
    return FrameTokens(found["image_features"], found["image_intermediates"][0].movedim(1, -1) @ visual.proj)
