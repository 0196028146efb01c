"""Stages "decode" and "transform": from a file to the pixels of its views."""

from __future__ import annotations

import torch
from torch import Tensor

from mote_fast.data import probe, read_frames
from mote_fast.data.decoding.decode import available_backends
from mote_fast.data.transforms import evaluation_pixels
from stages import released
from stages.setting import Setting
from stages.workload import RELEASED, Arm, Workload

# Decoders round colours differently, and Pillow rounds between its two passes.
PIXEL_TOLERANCE = 0.05


def decode(setting: Setting) -> list[Workload]:
    """Decode the distinct frames of three views; the released recipe asks for every view's frames in turn."""
    plan = setting.plan
    wanted = plan.frame_indices[plan.positions].flatten().tolist()

    def ours(backend: str) -> Tensor:
        info = probe(setting.video)
        return plan.gather(read_frames(setting.video, plan.frame_indices, backend, info=info)[:, None]).flatten(0, 1)

    usable = [name for name, why in available_backends().items() if why is None]
    arms = [
        Arm(RELEASED, lambda: torch.from_numpy(released.read(setting.video, wanted)), setting.views.clips),
        Arm("mote_fast", lambda: ours("auto"), setting.views.clips, tolerance=PIXEL_TOLERANCE),
        *(Arm(name, lambda name=name: ours(name), setting.views.clips, tolerance=PIXEL_TOLERANCE) for name in usable),
    ]
    note = f"{len(plan.frame_indices)} distinct frames of {setting.video.name}; mote_fast picks its decoder by the file"
    return [Workload("decode", "decode", arms, setting.rounds(9), note=note)]


def transform(setting: Setting) -> list[Workload]:
    """Scale, crop and normalise the frames of three views."""
    clip, plan = setting.model.clip, setting.plan
    frames = read_frames(setting.video, plan.frame_indices)
    size, mean, std = clip.image_size, clip.config.mean, clip.config.std
    repeated = plan.gather(frames[:, None]).flatten(0, 1).numpy()

    def ours() -> Tensor:
        pixels = evaluation_pixels(frames.to(setting.device), size, setting.views.crops, mean, std, setting.dtype)
        return plan.gather(pixels).flatten(0, 1)

    def theirs() -> Tensor:
        return released.transform(repeated, size, mean, std).to(setting.device)

    arms = [
        Arm(RELEASED, theirs, setting.views.clips),
        Arm("mote_fast", ours, setting.views.clips, tolerance=PIXEL_TOLERANCE),
    ]
    return [Workload("transform", "transform", arms, setting.rounds(15))]
