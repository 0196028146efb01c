"""Classify videos with an exported folder: ONNX Runtime, NumPy and PyAV alone, no PyTorch and no mote_fast.

mote-fast export MODEL FOLDER --labels "archery,juggling balls"
python examples/onnx_only.py FOLDER VIDEO ...      # three clips, one centre crop; nothing is rotated or repaired
"""

import json
import sys
from pathlib import Path

import av
import numpy as np
import onnxruntime


def read_frames(path: str, frames: int, clips: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct frames, uint8 [U, H, W, 3], and each clip's places among them, [clips, frames]."""
    with av.open(path) as container:
        count = sum(1 for _ in container.decode(video=0))
    part = count / frames
    shifts = np.floor(np.linspace(0, part - 1, clips))[:, None]
    wanted, places = np.unique(np.trunc(np.arange(frames) * part + shifts).astype(int) % count, return_inverse=True)
    with av.open(path) as container:
        images = [f.to_ndarray(format="rgb24") for at, f in enumerate(container.decode(video=0)) if at in wanted]
    return np.stack(images), places.reshape(clips, frames)


def resize(images: np.ndarray, axis: int, size: int, cubic: bool) -> np.ndarray:
    """Scale one axis of uint8 images, with antialiasing, and round."""
    scale = images.shape[axis] / size
    places, centers = np.arange(images.shape[axis]) + 0.5, (np.arange(size)[:, None] + 0.5) * scale
    x = np.abs(places - centers) / max(scale, 1)
    tail = np.where(x < 2, ((2.5 - x / 2) * x - 4) * x + 2, 0)
    kernel = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, tail) if cubic else np.maximum(1 - x, 0)
    scaled = np.tensordot(kernel / kernel.sum(1, keepdims=True), images, (1, axis)).round().clip(0, 255)
    return np.moveaxis(scaled.astype(np.uint8), 0, axis)


def to_pixels(images: np.ndarray, wanted: dict) -> np.ndarray:
    """Scale, crop the centre and normalise: float32 [N, 3, S, S]."""
    size, (height, width) = wanted["size"], images.shape[1:3]
    short = size if wanted["resize_mode"] == "squash" else int(size * max(height, width) / min(height, width))
    for axis, length in ((2, size if width <= height else short), (1, size if height <= width else short)):
        images = resize(images, axis, length, wanted["interpolation"] == "bicubic")
    top, left = (round((length - size) / 2) for length in images.shape[1:3])
    pixels = images[:, top : top + size, left : left + size] / 255
    return ((pixels - wanted["mean"]) / wanted["std"]).astype(np.float32).transpose(0, 3, 1, 2)


folder = Path(sys.argv[1])
about = json.loads((folder / "export.json").read_text())
tower, head = (onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("tower", "head"))
for video in sys.argv[2:]:
    images, places = read_frames(video, about["frames"])
    (features,) = tower.run(None, {"pixels": to_pixels(images, about["preprocessing"])})
    (scores,) = head.run(None, {"features": features[places], "classes": np.load(folder / "classes.npy")})
    ranked = [(about["labels"][at], float(scores[at])) for at in np.argsort(-scores, kind="stable")]
    print(json.dumps({"video": video, "predictions": ranked}))
