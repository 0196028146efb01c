"""Attention maps: cosines of a variant's frame features with the patches of the frame (paper Figure 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.analysis.patch_tokens import encode_patches
from mote_fast.analysis.tables import to_csv
from mote_fast.analysis.variants import Variant
from mote_fast.clip.towers import ClipTowers
from mote_fast.data.transforms import normalize
from mote_fast.runtime.checks import check_finite
from mote_fast.runtime.progress import Progress

# Frames per forward pass of the image tower: few, for a responsive progress bar.
FRAMES_PER_PASS = 4


@dataclass(frozen=True)
class AttentionMaps:
    """Attention maps of one view.

    Attributes:
        frames: uint8 [T, 3, S, S], the input of the image tower.
        maps: float32 [T, rows, columns] by the variant's name: for each frame, the cosines of its output feature with
            its own patches.
    """

    frames: Tensor
    maps: Mapping[str, Tensor]


def attention_maps(
    towers: ClipTowers, variants: Sequence[Variant], frames: Tensor, *, progress: Progress | None = None
) -> AttentionMaps:
    """Compare each frame's output feature with the patches of that frame.

    The output feature is the temporal plus the frame feature before the average over frames; it depends on all frames.
    There is no label set and therefore no modulation. ``encode_patches`` gives the patches.

    Args:
        towers: see ``encode_patches``.
        variants: the variants to map.
        frames: uint8 [T, 3, S, S], one view; S is the image tower's input size.
        progress: called with the number of frames done since the last call.

    Raises:
        ConfigError: the image tower has no patch features.
        NotFiniteError: features are NaN or infinite.
    """
    features, patches = [], []
    for part in frames.split(FRAMES_PER_PASS):
        pixels = normalize(part.to(towers.device), towers.config.preprocessing, towers.dtype)
        tokens = encode_patches(towers, pixels)
        features.append(tokens.frames)
        patches.append(tokens.patches)
        if progress is not None:
            progress(len(part))
    view = torch.cat(features)[None]
    directions = F.normalize(torch.cat(patches).float(), dim=-1)
    maps: dict[str, Tensor] = {}
    with torch.inference_mode():
        for variant in variants:
            output = F.normalize(variant.features(view, None)[0].float(), dim=-1)
            maps[variant.name] = torch.einsum("trcd,td->trc", directions, output).cpu()
            check_finite(maps[variant.name], "attention maps")
    return AttentionMaps(frames.cpu(), maps)


def attention_csv(found: AttentionMaps) -> str:
    """Return one line for each variant, frame and patch."""
    return to_csv(["variant", "frame", "row", "column", "cosine"], _rows(found))


def _rows(found: AttentionMaps) -> Iterable[Sequence[object]]:
    for variant, maps in found.maps.items():
        for frame, grid in enumerate(maps.tolist()):
            for row, line in enumerate(grid):
                for column, value in enumerate(line):
                    yield [variant, frame, row, column, value]
