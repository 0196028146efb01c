"""What the official test scripts and ours were both given: drawn videos of every shape, and a checkpoint.

tests/golden/README.md says how the scripts were run on it. All is drawn by integers and stored without loss, so that
every machine has the same frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from mote_fast.data import write_video

CLASSES = (
    "juggling balls",
    "apply eye makeup",
    "brush hair",
    "playing the cello",
    "moonwalking",
    "juggling hair",
    "playing balls",
    "brush makeup",
    "apply makeup the hair",
    "the cello",
    "moonwalking the balls",
    "juggling the eye",
)

# Names of extracted frames, and rows of the head's fine-tuning classes, which the official test scripts fix.
FRAME_TEMPLATE = "img_{:05d}.png"
TRAIN_CLASSES = 400


class Drawn(NamedTuple):
    """One video: its size, pixels, and number of frames."""

    width: int
    height: int
    frames: int


_SIZES = ((96, 64), (64, 96), (64, 64), (75, 40), (38, 70), (32, 32), (48, 36), (90, 33), (33, 90))
# Fewer frames than a clip, as many, and any.
_LENGTHS = (5, 8, 9, 23, 40)

VIDEOS = [Drawn(*_SIZES[at % len(_SIZES)], _LENGTHS[at % len(_LENGTHS)]) for at in range(36)]


def draw(number: int) -> Tensor:
    """Draw the frames of video ``number``: coloured blocks and moving stripes, uint8 [T, H, W, 3]."""
    width, height, frames = VIDEOS[number]
    time, down, across = torch.meshgrid(*(torch.arange(size) for size in (frames, height, width)), indexing="ij")
    # Blocks of colour make the crops and the clips of a video differ.
    block = (3 * across) // width + 3 * ((3 * down) // height) + 9 * ((5 * time) // frames)
    channels = []
    for channel in range(3):
        # Small primes keep the videos and the channels apart.
        key = 7 * number + 3 * channel + 1
        stripe = (across * (key % 5) + down * (key % 7) + time * (key % 11)) % 48
        channels.append((37 * key + 61 * block * (1 + key % 3)) % 208 + stripe)
    return torch.stack(channels, dim=-1).to(torch.uint8)


def write_videos(folder: Path) -> list[str]:
    """Write each video as a file, and as a folder of frames; return the names of the files, without suffix."""
    names = [f"video_{number:02d}" for number in range(len(VIDEOS))]
    for number, name in enumerate(names):
        frames = draw(number)
        write_video(folder / f"{name}.mkv", frames, codec="ffv1", pix_fmt="bgr0")
        (folder / name).mkdir()
        for at, frame in enumerate(frames.numpy()):
            Image.fromarray(frame).save(folder / name / FRAME_TEMPLATE.format(at + 1), compress_level=1)
    return names


def checkpoint(clip_state: Mapping[str, Tensor], released_head: Mapping[str, Tensor]) -> dict[str, object]:
    """Return a checkpoint in the released layout: an image tower tuned away from its CLIP, and a head."""
    tuned = {
        name: _factor(name) * value
        for name, value in clip_state.items()
        if name.startswith("visual.") or name == "logit_scale"
    }
    known = released_head["spe_cls_feature"]
    repeated = known.repeat(-(-TRAIN_CLASSES // len(known)), 1)[:TRAIN_CLASSES]
    return {
        "epoch": 0,
        "model_state_dict": tuned,
        "fusion_model_state_dict": {**released_head, "spe_cls_feature": repeated},
        "optimizer_state_dict": {},
    }


def _factor(name: str) -> float:
    """What a weight is multiplied with, so that random weights tell the videos apart."""
    part = name.removeprefix("visual.")
    if part.endswith("attn.out_proj.weight"):
        return 3.0
    return {"conv1.weight": 30.0, "class_embedding": 0.1, "positional_embedding": 0.1}.get(part, 1.0)
