"""The loading arm of the released recipe, written plainly: decord, Pillow and torchvision transforms, frame by frame.

Same algorithm and order of work as the released data set class and its peers': one decord reader a video with one
thread, frames as Pillow images, each scaled, cropped, flipped and greyed on its own, stacked along the channels, turned
into a float tensor and normalised. Only the random choices are ours, so that both arms make the same clip.
"""

from __future__ import annotations

import decord
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF
from torchvision.transforms.functional import InterpolationMode

from mote_fast.data.plan import ClipPlan
from mote_fast.data.transforms import CLIP_MEAN, CLIP_STD


def load_clip(path: str, plan: ClipPlan, size: int) -> Tensor:
    """Return the one view that ``plan`` asks for: float32 [T, 3, size, size], normalised."""
    reader = decord.VideoReader(path, num_threads=1)
    frames = reader.get_batch(plan.views.frame_indices.tolist()).asnumpy()
    images = [_transform(Image.fromarray(frames[at]), plan, size) for at in plan.views.positions[0].tolist()]
    stacked = np.concatenate([np.asarray(image) for image in images], axis=2)
    tensor = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255)
    mean = torch.tensor(CLIP_MEAN * len(images))[:, None, None]
    std = torch.tensor(CLIP_STD * len(images))[:, None, None]
    return tensor.sub_(mean).div_(std).unflatten(0, (len(images), 3))


def _transform(image: Image.Image, plan: ClipPlan, size: int) -> Image.Image:
    geometry, box = plan.geometry, plan.geometry.boxes[0]
    image = TF.resize(image, list(geometry.scaled), InterpolationMode.BICUBIC)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    image = TF.crop(image, *box)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    if image.size != (size, size):
        image = TF.resize(image, [size, size], InterpolationMode.BILINEAR)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    if geometry.flip:
        image = TF.hflip(image)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    return TF.to_grayscale(image, 3) if geometry.grayscale else image
