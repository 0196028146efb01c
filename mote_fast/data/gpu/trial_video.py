"""A drawn video whose frames carry their numbers, and what a decoder makes of it: its time, and the right frames."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Mapping

import av
import numpy as np
import torch
from torch import Tensor

from mote_fast.data.decoding.decode import probe
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.gpu.decode_engine import DecodeEngine
from mote_fast.data.gpu.decode_server import TRIAL_CLIPS, DecodeServer, GpuDecoder, ReadyClip
from mote_fast.data.gpu.ready_clips import ready_clip
from mote_fast.data.plan import ClipPlan, ClipRecipe
from mote_fast.data.transforms import Box, Geometry, Preprocessing
from mote_fast.data.views import ViewPlan
from mote_fast.errors import BackendError
from mote_fast.runtime.workers import WorkerLostError

# As those of Kinetics; each frame shows its number as two rows of three squares, black or white.
FRAMES, HEIGHT, WIDTH = 60, 360, 640
# The first frames, and the last, which decoders that read ahead get wrong.
WANTED = (0, 1, 17, 29, 30, FRAMES - 3, FRAMES - 2, FRAMES - 1)

_SIZE = 96
_RECIPE = ClipRecipe(len(WANTED), Preprocessing(_SIZE, resize_mode="squash"))
# Encoders by the codec, the most common one first.
_ENCODERS = {
    "h264": ("libx264", ".mp4", {"preset": "ultrafast", "bf": 2}),
    "vp9": ("libvpx-vp9", ".webm", {"deadline": "realtime", "cpu-used": 8}),
}
_ROUNDS = 3
# Seconds for one request.
_TIME_LIMIT = 60.0


def draw() -> np.ndarray:
    """The frames, uint8 [FRAMES, HEIGHT, WIDTH, 3]."""
    frames = np.full((FRAMES, HEIGHT, WIDTH, 3), 90, np.uint8)
    for number in range(FRAMES):
        for bit in range(6):
            top, left = bit // 3 * HEIGHT // 2, bit % 3 * WIDTH // 3
            frames[number, top : top + HEIGHT // 2, left : left + WIDTH // 3] = 235 * (number >> bit & 1)
    return frames


def numbers(pixels: Tensor) -> list[int]:
    """The numbers of frames, uint8 [N, 3, S, S] of any S."""
    rows = pixels.float().mean(1).unflatten(1, (2, -1)).unflatten(3, (3, -1))
    # The middles of the squares, [N, 2, 3].
    side = rows.shape[2] // 3
    middles = rows[:, :, side:-side, :, side // 2 : -(side // 2)].mean((2, 4))
    bits = (middles > 110).flatten(1).long()
    return (bits << torch.arange(6)).sum(1).tolist()


def judge(
    decoders: Mapping[str, GpuDecoder], device: torch.device, threads: int, *, isolated: bool = True
) -> dict[str, float | str] | None:
    """Time decoders on the drawn video, and compare the numbers of the frames.

    Args:
        decoders: by name.
        device: where to decode; a CUDA device has its index.
        threads: of each decoder.
        isolated: whether other processes decode.

    Returns:
        Of each decoder the median of the seconds for ``TRIAL_CLIPS`` clips, or why it does not serve; None if this PyAV
        has no encoder for a codec that all of them take.
    """
    kind = "gpu" if device.type == "cuda" else "cpu"
    common = frozenset[str].intersection(*(each.takes[kind].codecs for each in decoders.values()))
    encoders = [each for codec, each in _ENCODERS.items() if codec in common and each[0] in av.codecs_available]
    if not encoders:
        return None
    codec, suffix, options = encoders[0]
    with tempfile.TemporaryDirectory(prefix="mote_fast_trial_") as folder:
        path = os.path.join(folder, f"trial{suffix}")
        # The matrix is BT.601's, the range limited.
        write_video(path, draw(), codec=codec, g=12, colorspace=6, color_range=1, **options)
        found: dict[str, float | str] = {}
        engines: dict[str, tuple[DecodeEngine, ReadyClip]] = {}
        try:
            for name, decoder in decoders.items():
                clip = _clip(path, decoder, kind)
                if isinstance(clip, str):
                    found[name] = clip
                    continue
                engine = DecodeEngine(
                    *(decoder, _RECIPE, device),
                    batch_size=TRIAL_CLIPS,
                    threads=threads,
                    time_limit=_TIME_LIMIT,
                    isolated=isolated,
                )
                engines[name] = engine, clip
            times: dict[str, list[float]] = {name: [] for name in engines}
            # By turns, so that what else the machine does meets all of them.
            for _ in range(_ROUNDS):
                for name, (engine, clip) in engines.items():
                    if name not in found:
                        answer = _attempt(engine, clip)
                        if isinstance(answer, str):
                            found[name] = answer
                        else:
                            times[name].append(answer)
        finally:
            for engine, _ in engines.values():
                engine.close()
    return {name: found[name] if name in found else statistics.median(times[name]) for name in decoders}


def _clip(path: str, decoder: GpuDecoder, kind: str) -> ReadyClip | str:
    info = probe(path)
    count = len(WANTED)
    views = ViewPlan(torch.tensor(WANTED), torch.arange(count)[None], 1)
    plan = ClipPlan(views, Geometry((_SIZE, _SIZE), (Box(0, 0, _SIZE, _SIZE),)), 0)
    return ready_clip(path, info, plan, decoder.takes["gpu" if kind == "gpu" else "cpu"])


def _attempt(engine: DecodeEngine, clip: ReadyClip) -> float | str:
    """Seconds for ``TRIAL_CLIPS`` clips, or why the decoder does not serve."""
    try:
        seconds = engine.ask((DecodeServer.attempt, clip, True))
        if isinstance(seconds, str):
            return seconds
        problem = engine.ask((DecodeServer.feed, [clip]))
        answer = problem or engine.ask((DecodeServer.take,))
    except (WorkerLostError, BackendError) as error:
        return str(error)
    if isinstance(answer, str):
        return answer
    shown = numbers(answer.tensor[0])
    return seconds if shown == list(WANTED) else f"it gives frames {shown} instead of {list(WANTED)}"
