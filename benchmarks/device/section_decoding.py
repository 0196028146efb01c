"""Section 10: the GPU's decoders, DALI's and torchcodec's, against decoding on the CPU: frames, colours, time."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mote_fast.device_check.check import Check, attempt, holds, skipped
from mote_fast.device_check.check_setting import CheckSetting

FRAMES = 40
# The first frames, and the last, which decoders that read ahead get wrong.
WANTED = (0, 1, FRAMES // 2, FRAMES - 3, FRAMES - 2, FRAMES - 1)
# More batches than a pipeline prepares in advance.
BATCHES, CLIPS = 5, 2


class Kind(NamedTuple):
    """A kind of video; FFmpeg's number of its colour matrix is 6 for BT.601 and 1 for BT.709."""

    codec: str
    suffix: str
    height: int
    width: int
    matrix: int


# 1080 lines are coded as 1088; 358 and 638 are no multiples of 16 either; 128 may be below a decoder's least.
SIZES = ((1080, 1920), (358, 638), (128, 176), (480, 640))
CODECS = (("libx264", ".mp4"), ("libx265", ".mp4"), ("libvpx-vp9", ".webm"))
DRY_KINDS = [Kind("libvpx-vp9", ".webm", 48, 64, 6)]

Decoder = Callable[[Path, Kind], list[Tensor]]


def kinds() -> list[Kind]:
    """Twelve of them: every codec in every size, BT.709 where the picture is large."""
    return [Kind(*codec, *size, 1 if size[0] == 1080 else 6) for codec, size in itertools.product(CODECS, SIZES)]


def draw(kind: Kind) -> np.ndarray:
    """uint8 [FRAMES, H, W, 3]: the frame's number as six squares above, colours below."""
    frames = np.zeros((FRAMES, kind.height, kind.width, 3), np.uint8)
    side = kind.width // 6
    for number, bit in itertools.product(range(FRAMES), range(6)):
        frames[number, : kind.height // 2, bit * side : (bit + 1) * side] = 255 * (number >> bit & 1)
    colors = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [120, 120, 120], [200, 200, 60], [60, 200, 200]])
    for at, color in enumerate(colors):
        frames[:, kind.height // 2 :, at * side : (at + 1) * side] = color
    return frames


def numbers(frames: Tensor, kind: Kind) -> list[int]:
    """The numbers of decoded frames, uint8 [N, H, W, 3]."""
    side, height = kind.width // 6, kind.height
    squares = [
        frames[:, height // 8 : height // 4, bit * side + side // 4 : bit * side + side // 2].float().mean((1, 2, 3))
        for bit in range(6)
    ]
    return sum((square > 127).long() << bit for bit, square in enumerate(squares)).tolist()  # pyright: ignore


def checks(setting: CheckSetting) -> Iterator[Check]:
    """Write the videos, then decode them by each decoder that is installed."""
    yield from attempt("decoders", lambda: _all(setting))


def _all(setting: CheckSetting) -> Iterator[Check]:
    import av

    from mote_fast.data.decoding.decode import read_frames
    from mote_fast.data.decoding.video_writer import write_video

    decoders = {"DALI": partial(by_dali, setting), "torchcodec": partial(by_torchcodec, setting)}
    usable: dict[str, Decoder] = {}
    for name, why in (("DALI", why_no_dali(setting)), ("torchcodec", why_no_torchcodec(setting))):
        if why is None:
            usable[name] = decoders[name]
        else:
            yield skipped(name, why)
    with tempfile.TemporaryDirectory(prefix="device_check_videos_") as folder:
        for number, kind in enumerate(setting.size(kinds(), DRY_KINDS)):
            title = f"{kind.codec} {kind.width}x{kind.height} matrix {kind.matrix}"
            if setting.left < setting.size(3, 0):
                yield skipped(title, "no time is left")
                continue
            if kind.codec not in av.codecs_available:
                yield skipped(title, "this PyAV has no such encoder")
                continue
            path = Path(folder) / f"{number}{kind.suffix}"
            options = {"g": 12, "colorspace": kind.matrix, "color_range": 1}
            fast = {"deadline": "realtime", "cpu-used": 8} if "vp9" in kind.codec else {"preset": "ultrafast", "bf": 2}
            write_video(path, draw(kind), codec=kind.codec, **options, **fast)
            reference = read_frames(path, list(WANTED), "auto")
            yield holds(f"{title}: CPU", numbers(reference, kind) == list(WANTED))
            for name, decode in usable.items():
                full = f"{title}: {name}"
                yield from attempt(full, partial(_compare, full, decode, path, kind, reference))


def _compare(name: str, decode: Decoder, path: Path, kind: Kind, reference: Tensor) -> Iterator[Check]:
    """Every batch has the frames that were asked for; how far their colours are from those of the CPU, in levels."""
    start = time.perf_counter()
    batches = decode(path, kind)
    seconds = time.perf_counter() - start
    found = [numbers(frames, kind) for frames in batches]
    wrong = [each for each in found if each != list(WANTED)]
    yield holds(f"{name}: frames", not wrong, f"{len(wrong)} of {len(found)} clips; {wrong[:1]}" if wrong else "")
    difference = batches[0].float() - reference.float()
    below = difference[:, kind.height // 2 :].mean((0, 1, 2)).tolist()
    figures = dict(zip(("red", "green", "blue"), below, strict=True))
    figures |= {"mean magnitude": difference.abs().mean().item(), "ms a clip": 1e3 * seconds / len(batches)}
    yield Check(f"{name}: levels above the CPU's", "figure", figures=figures)


def why_no_dali(setting: CheckSetting) -> str | None:
    """Why DALI cannot decode here."""
    from mote_fast.data.dali.pipeline import why_unavailable

    return why_unavailable("gpu" if setting.on_gpu else "cpu")


def by_dali(setting: CheckSetting, path: Path, kind: Kind) -> list[Tensor]:
    """The wanted frames of each clip of each batch, through the graph of the loader, colours as DALI gives them."""
    from mote_fast.data.dali.color import identity
    from mote_fast.data.dali.pipeline import ClipInput, build_pipeline, columns
    from mote_fast.data.plan import ClipRecipe
    from mote_fast.data.transforms import Preprocessing

    clip = ClipInput(
        encoded=np.fromfile(path, np.uint8),
        indices=np.array(WANTED, np.int32),
        scaled=np.array((kind.height, kind.width), np.float32),
        boxes=np.array([[0, 0, kind.height, kind.width]], np.int32),
        colors=identity(),
        mirrored=np.array(0, np.int32),
        order=np.arange(len(WANTED), dtype=np.int32),
    )
    pipeline = build_pipeline(
        iter([columns([clip] * CLIPS) for _ in range(BATCHES)]),
        ClipRecipe(frames=len(WANTED), preprocessing=Preprocessing(kind.height)),
        batch_size=CLIPS,
        device="gpu" if setting.on_gpu else "cpu",
        device_id=setting.device.index if setting.on_gpu else None,
    )
    found: list[Tensor] = []
    for _ in range(BATCHES):
        pixels, _ = pipeline.run()
        found += [each.permute(0, 2, 3, 1).cpu() for each in torch.from_dlpack(pixels.as_tensor())]
    return found


def why_no_torchcodec(setting: CheckSetting) -> str | None:
    """Why torchcodec cannot decode here; on a GPU it takes a build for CUDA."""
    from mote_fast.data.decoding.backend_torchcodec import why_unavailable

    del setting
    return why_unavailable()


def by_torchcodec(setting: CheckSetting, path: Path, kind: Kind) -> list[Tensor]:
    """The wanted frames as often as DALI gives them; each time the file is opened."""
    from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportPrivateImportUsage]

    del kind
    found = []
    for _ in range(BATCHES * CLIPS):
        decoder = VideoDecoder(str(path), dimension_order="NHWC", device=str(setting.device))
        found.append(decoder.get_frames_at(list(WANTED)).data.cpu())
    return found
