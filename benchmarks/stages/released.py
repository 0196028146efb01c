"""The baseline arms: the released recipe written plainly, same algorithm and order of work.

Loading decodes with decord and transforms frame by frame with Pillow. The towers are open_clip's own modules with
``nn.MultiheadAttention``. Text is encoded anew at each start, all 77 positions of 28 prompts a label. The head merges
its experts one by one at every forward, and zero-shot evaluation runs it twice: once for the logits of the running
accuracy, once for the features of the full-class one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from eager import EagerBlock, EagerHead
from PIL import Image
from released_loading import normalised, read
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as TF
from torchvision.transforms.functional import InterpolationMode

from mote_fast import VideoHead
from mote_fast.clip import TEMPLATES, ClipTowers
from mote_fast.head.modulation import modulation_factor
from mote_fast.head.scores import view_scores
from mote_fast.head.video_head import cosine_logits


def transform(frames: np.ndarray, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale, crop and normalise frames one by one with Pillow: float32 [N, 3, size, size]."""
    images = [
        TF.center_crop(TF.resize(Image.fromarray(frame), size, InterpolationMode.BICUBIC), [size, size])  # pyright: ignore[reportArgumentType]
        for frame in frames
    ]
    return normalised(images, mean, std)


@torch.no_grad()
def encode_labels(towers: ClipTowers, labels: Sequence[str]) -> Tensor:
    """Class features [C, d]: every prompt at all 77 positions, the 28 of a label in one batch."""
    rows = []
    for label in labels:
        tokens = towers.tokenizer([template.format(label) for template in TEMPLATES]).to(towers.device)
        prompts = F.normalize(towers.model.encode_text(tokens), dim=-1)
        rows.append(F.normalize(prompts.mean(0), dim=0))
    return torch.stack(rows)


class ReleasedHead(EagerHead):
    """Inference of the released head, with the weights of a ``VideoHead``."""

    def __init__(self, head: VideoHead) -> None:
        super().__init__(head)
        assert head.train_class_features is not None
        self.train_class_features = head.train_class_features
        # The released fusion vectors: zeros, so a plain average, but a softmax at every forward all the same.
        self.fusion = torch.zeros(len(self.blocks), head.experts, device=head.frame_positions.device)

    def forward(self, frames: Tensor, classes: Tensor) -> Tensor:
        """Temporal features ``[B, T, d]`` of ``frames [B, T, d]``, modulated for ``classes [C, d]``."""
        x = frames + self.frame_positions[: frames.shape[1]]
        for block, fusion in zip(cast("list[EagerBlock]", list(self.blocks)), self.fusion, strict=True):
            x = block.attend(x)
            x = x + block.mlp.merged(block.ln_2(x), fusion.softmax(-1).to(x.dtype))
        factor = modulation_factor(frames, F.normalize(classes, dim=-1), F.normalize(self.train_class_features, dim=-1))
        return factor.to(x.dtype)[:, None, None] * x + frames


def evaluate_views(head: ReleasedHead, frames: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """One evaluation step: logits [B, C] from one pass, mean features [B, d] from another."""
    return cosine_logits(head(frames, classes), classes), head(frames, classes).mean(1)


@torch.no_grad()
def classify(
    path: Path, indices: Sequence[int], towers: ClipTowers, head: ReleasedHead, classes: Tensor, views: int
) -> Tensor:
    """Score one video [C] from file to scores; ``indices`` are the frames of its views, one view after another."""
    pixels = transform(read(path, indices), towers.image_size, towers.config.mean, towers.config.std)
    features = towers.model.encode_image(pixels.to(towers.device, towers.dtype))
    logits, _ = evaluate_views(head, features.unflatten(0, (views, -1)), classes)
    return view_scores(logits, views).squeeze(0)
