"""Write frames to a video file; for demonstrations and tests."""

from __future__ import annotations

import os
from fractions import Fraction

import av
import numpy as np
import torch

from mote_fast.errors import ConfigError


def write_video(
    path: str | os.PathLike[str],
    frames: torch.Tensor | np.ndarray,
    fps: float | Fraction = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    **options: str | int | float,
) -> str:
    """Encode ``frames``, uint8 ``[T, H, W, 3]`` RGB, at ``fps`` frames per second; return the path.

    The file extension selects the container. ``codec`` is FFmpeg's name of an encoder, ``pix_fmt`` its pixel format
    (4:2:0 formats need even sizes with most codecs), and ``options`` are passed to the encoder: ``g`` (longest distance
    between key frames), ``bf`` (B-frames in a row), ``crf``, ``preset``.

    Raises ``ConfigError`` for frames of another shape or dtype and for an encoder that this PyAV lacks, and PyAV's
    error if the container or encoder refuses.
    """
    images = frames.cpu().numpy() if isinstance(frames, torch.Tensor) else frames
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or images.size == 0:
        raise ConfigError(f"frames must be uint8 [T, H, W, 3] with T > 0, got {images.dtype} {tuple(images.shape)}")
    if codec not in av.codecs_available:
        raise ConfigError(f"this PyAV has no encoder {codec!r}; choose one of av.codecs_available")
    name = os.fspath(path)
    with av.open(name, "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(65535))
        if not isinstance(stream, av.VideoStream):
            raise ConfigError(f"{codec!r} does not encode video")
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.options = {key: str(value) for key, value in options.items()}
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
    return name
