"""The loading arm of the released recipe, written plainly: decord, Pillow and torchvision transforms, frame by frame.

Same algorithm and order of work as the released data set class and its peers': one decord reader a video with one
thread, frames as Pillow images, each scaled, cropped, flipped and greyed on its own, stacked along the channels, turned
into a float tensor and normalised. Only the random choices are ours, so that both arms make the same clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF
from torchvision.transforms.functional import InterpolationMode

from mote_fast.data.plan import ClipPlan
from mote_fast.data.transforms import CLIP_MEAN, CLIP_STD


def read(path: Path | str, indices: Sequence[int]) -> np.ndarray:
    """Decode frames with decord: uint8 [N, H, W, 3]."""
    try:
        import decord
    except ImportError as error:
        raise SystemExit("the released recipe decodes with decord: pip install 'mote_fast[bench]'") from error
    return decord.VideoReader(str(path), num_threads=1).get_batch(list(indices)).asnumpy()


def normalised(images: Sequence[Image.Image], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Stack frames along the channels, as the released transforms do, and normalise: float32 [T, 3, H, W]."""
    stacked = np.concatenate([np.asarray(image) for image in images], axis=2)
    tensor = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255)
    shift = torch.tensor(tuple(mean) * len(images))[:, None, None]
    scale = torch.tensor(tuple(std) * len(images))[:, None, None]
    return tensor.sub_(shift).div_(scale).unflatten(0, (len(images), 3))


def load_clip(path: str, plan: ClipPlan, size: int) -> Tensor:
    """Return the one view that ``plan`` asks for: float32 [T, 3, size, size], normalised."""
    frames = read(path, plan.views.frame_indices.tolist())
    images = [_transform(Image.fromarray(frames[at]), plan, size) for at in plan.views.positions[0].tolist()]
    return normalised(images, CLIP_MEAN, CLIP_STD)


def _transform(image: Image.Image, plan: ClipPlan, size: int) -> Image.Image:
    geometry, box = plan.geometry, plan.geometry.boxes[0]
    image = TF.resize(image, list(geometry.scaled), InterpolationMode.BICUBIC)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    image = TF.crop(image, *box)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    if image.size != (size, size):
        image = TF.resize(image, [size, size], InterpolationMode.BILINEAR)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    if geometry.flip:
        image = TF.hflip(image)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    return TF.to_grayscale(image, 3) if geometry.grayscale else image
