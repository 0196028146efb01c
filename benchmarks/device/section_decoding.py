"""Section 10: the GPU's decoders against decoding on the CPU: frames, colours, time, the choice, what classify says."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from mote_fast.device_check.check import Check, attempt, bounded, holds, skipped
from mote_fast.device_check.check_setting import CheckSetting

if TYPE_CHECKING:
    from mote_fast.data.gpu.decode_server import GpuDecoder
    from mote_fast.data.reading_choices import LoaderBackend

FRAMES = 40
# The first frames, and the last, which decoders that read ahead get wrong.
WANTED = (0, 1, FRAMES // 2, FRAMES - 3, FRAMES - 2, FRAMES - 1)
# More batches than a decoder prepares in advance.
BATCHES, CLIPS = 5, 2

# Largest difference of a score between frames of a GPU's decoder and of the CPU. At the edges of saturated patches DALI
# interpolates colours that FFmpeg repeats: 0.05 with its decoder of a CPU.
SCORES = 0.1


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


def kinds() -> list[Kind]:
    """Thirteen of them: every codec in every size, BT.709 where the picture is large, and H.264 so in BT.601 too."""
    found = [Kind(*codec, *size, 1 if size[0] == 1080 else 6) for codec, size in itertools.product(CODECS, SIZES)]
    return [found[0]._replace(matrix=6), *found]


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
    from mote_fast.data.gpu.decoder_choice import gpu_decoder
    from mote_fast.data.reading_choices import GPU_DECODERS

    usable: dict[str, GpuDecoder] = {}
    for name in GPU_DECODERS:
        decoder = gpu_decoder(name)
        if (why := decoder.why_unavailable("gpu" if setting.on_gpu else "cpu")) is None:
            usable[name] = decoder
        else:
            yield skipped(name, why)
    with tempfile.TemporaryDirectory(prefix="device_check_videos_") as folder:
        written: list[Path] = []
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
            written.append(path)
            reference = read_frames(path, list(WANTED), "auto")
            yield holds(f"{title}: CPU", numbers(reference, kind) == list(WANTED))
            for name, decoder in usable.items():
                full = f"{title}: {name}"
                yield from attempt(full, partial(_compare, full, decoder, setting, path, kind, reference))
        for name in usable:
            if setting.left < setting.size(5, 0):
                yield skipped(f"classify: {name}", "no time is left")
            elif written:
                yield from attempt(f"classify: {name}", partial(_classify, name, setting, written))
    if usable and setting.left < setting.size(5, 0):
        yield skipped("choice", "no time is left")
    elif usable:
        yield from attempt("choice", lambda: _choice(setting, usable))


def _choice(setting: CheckSetting, usable: Mapping[str, GpuDecoder]) -> Iterator[Check]:
    """The decoder that "auto" takes here, and why."""
    from mote_fast.data.gpu.decoder_choice import decide
    from mote_fast.data.gpu.trial_video import judge

    # The section has a process of its own.
    judged = judge(usable, setting.device, min(8, os.cpu_count() or 1), isolated=False)
    yield Check("choice", "figure", note=str(decide(list(usable), judged, {})))
    for name, found in (judged or {}).items():
        note = found if isinstance(found, str) else ""
        yield holds(f"{name}: frames of the drawn video", not note, note)


def _compare(
    name: str, decoder: GpuDecoder, setting: CheckSetting, path: Path, kind: Kind, reference: Tensor
) -> Iterator[Check]:
    """Every batch has the frames that were asked for; how far their colours are from those of the CPU, in levels."""
    batches, seconds = decode(decoder, setting, path, kind)
    found = [numbers(frames, kind) for frames in batches]
    wrong = [each for each in found if each != list(WANTED)]
    yield holds(f"{name}: frames", not wrong, f"{len(wrong)} of {len(found)} clips; {wrong[:1]}" if wrong else "")
    difference = batches[0].float() - reference.float()
    below = difference[:, kind.height // 2 :].mean((0, 1, 2)).tolist()
    figures = dict(zip(("red", "green", "blue"), below, strict=True))
    figures |= {"mean magnitude": difference.abs().mean().item(), "ms a clip": 1e3 * seconds / len(batches)}
    yield Check(f"{name}: levels above the CPU's", "figure", figures=figures)


def decode(decoder: GpuDecoder, setting: CheckSetting, path: Path, kind: Kind) -> tuple[list[Tensor], float]:
    """The wanted frames of each clip of each batch, uint8 [N, H, W, 3], as the loader asks for them; and the seconds.

    Raises:
        ValueError: the decoder refuses the video.
    """
    from mote_fast.data.decoding.decode import probe
    from mote_fast.data.gpu.decode_server import PREFETCH
    from mote_fast.data.gpu.ready_clips import ready_clip
    from mote_fast.data.plan import ClipPlan, ClipRecipe
    from mote_fast.data.transforms import Box, Geometry, Preprocessing
    from mote_fast.data.views import ViewPlan, Views

    side, across, count = kind.height, kind.width - kind.height, len(WANTED)
    # Two squares show the whole frame; the third crop is there because views have one or three.
    boxes = Box(0, 0, side, side), Box(0, across, side, side), Box(0, 0, side, side)
    plan = ClipPlan(
        ViewPlan(torch.tensor(WANTED), torch.arange(count)[None], 3), Geometry((kind.height, kind.width), boxes), 0
    )
    # Colours that the loader keeps from decoders are compared too.
    takes = replace(decoder.takes["gpu" if setting.on_gpu else "cpu"], matrices=frozenset(range(16)))
    clip = ready_clip(str(path), probe(path), plan, takes)
    if isinstance(clip, str):
        raise ValueError(clip)
    recipe = ClipRecipe(count, Preprocessing(side), Views(1, 3))
    place = ("gpu", setting.device.index or 0) if setting.on_gpu else ("cpu", None)
    server = decoder.server(recipe, *place, CLIPS, CLIPS)
    found: list[Tensor] = []
    fed = 0
    start = time.perf_counter()
    for taken in range(BATCHES):
        while fed < min(BATCHES, taken + PREFETCH):
            if (problem := server.feed([clip] * CLIPS)) is not None:
                raise ValueError(problem)
            fed += 1
        answer = server.take()
        if isinstance(answer, str):
            raise ValueError(answer)
        for pixels in answer.tensor:
            left, right, _ = pixels.unflatten(0, (3, count))
            found.append(torch.cat([left[..., :across], right], -1).permute(0, 2, 3, 1))
    return found, time.perf_counter() - start


def _classify(name: str, setting: CheckSetting, paths: list[Path]) -> Iterator[Check]:
    """The same best label, and scores close to those of the CPU's frames, on the same device."""
    from mote_fast.model.checkpoint import load

    model = load("tiny", device=setting.device)
    labels = ["a red square", "a green circle", "a white flash", "darkness"]
    found = {}
    for loader in ("cpu", name):
        model.loader = cast("LoaderBackend", loader)
        found[loader] = model.classify([str(path) for path in paths], labels, topk=None, views="1x1")
    pairs = list(zip(found["cpu"], found[name], strict=True))
    scores = [[{each.label: each.score for each in ranked} for ranked in pair] for pair in pairs]
    largest = max(abs(mine[label] - theirs[label]) for mine, theirs in scores for label in labels)
    yield bounded(f"classify: {name}, scores", largest, SCORES)
    # Labels whose scores are that close may change places.
    other = sum(mine[0].label != theirs[0].label and mine[0].score - mine[1].score > SCORES for mine, theirs in pairs)
    yield holds(f"classify: {name}, best label", not other, f"{other} of {len(pairs)} differ" if other else "")
