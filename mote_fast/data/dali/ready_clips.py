"""Reads videos for the DALI loader: what DALI may decode is planned and checked, the rest is decoded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mote_fast.data.dali import color as dali_color
from mote_fast.data.dali.pipeline import ClipInput, Device
from mote_fast.data.dali.routing import StreamKind, kind_of, read_header, why_not_dali
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.video_info import VideoInfo
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.samples import load_row
from mote_fast.data.plan import ClipPlan
from mote_fast.data.transforms import Geometry

_NO_FILE = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class ReadyClip:
    """A video that DALI may decode.

    Attributes:
        index: of the video in the list.
        label: of the clip.
        path: of the file.
        kind: of the video.
        item: the input of the graph, still without the file.
        shape: (U, H, W, 3), expected of its frames.
        geometry: what ``item`` says of scaling, crops, mirroring and grey, as the CPU loader takes it.
        stream: place of the video stream in the container.
        seconds: when the frames of ``item.indices`` are shown, and half a tick of the stream's clock.
    """

    index: int
    label: int
    path: str
    kind: StreamKind
    item: ClipInput
    shape: tuple[int, ...]
    geometry: Geometry
    stream: int
    seconds: tuple[tuple[float, ...], float]


class OwnClip(NamedTuple):
    """A video that was decoded without DALI: its label, and why."""

    label: int
    reason: str


class ClipReader:
    """Reads one video after another, usually in a worker process.

    Args:
        dataset: the videos.
        device: DALI's device.
    """

    def __init__(self, dataset: VideoDataset, device: Device) -> None:
        self._dataset = dataset
        self._device: Device = device

    def __call__(self, task: tuple[int, int, str], row: Tensor) -> ReadyClip | OwnClip | Failure:
        """Read a video.

        Args:
            task: index, epoch, and why DALI must not decode it; empty if it may.
            row: uint8 [V, T, 3, S, S], filled if DALI does not decode the video.

        Raises:
            MoteError: the recipe or a backend is at fault, not the video.
        """
        index, epoch, reason = task
        prepared = reason or self._prepare(index, epoch)
        if isinstance(prepared, ReadyClip):
            return prepared
        label = load_row(self._dataset, index, epoch, row)
        return label if isinstance(label, Failure) else OwnClip(label, prepared)

    def _prepare(self, index: int, epoch: int) -> ReadyClip | str:
        """Plan a video for DALI, or say why DALI should not decode it."""
        if self._dataset.items[index].num_frames:
            return "a folder of images"
        try:
            info, plan = self._dataset.plan(index, epoch)
            header = read_header(info.path)
            size = os.path.getsize(info.path)
        # Reading without DALI meets the same error, and reports it.
        except Exception:
            return "unreadable"
        item = _clip_input(plan, info)
        frames = len(item.indices), info.height, info.width, 3
        scaled = len(item.indices), *plan.geometry.scaled, 3
        frame_bytes = max(int(np.prod(shape, dtype=np.int64)) for shape in (frames, scaled))
        reason = why_not_dali(info, header, size, frame_bytes, self._device)
        if reason:
            return reason
        kind, timeline = kind_of(info, header), info.timeline
        stamps = (timeline.pts[at] for at in item.indices.tolist())
        seconds = tuple(float(pts * timeline.time_base) for pts in stamps if pts is not None)
        return ReadyClip(
            *(index, plan.label, info.path, kind, item, frames, plan.geometry),
            stream=timeline.stream_index,
            seconds=(seconds, float(timeline.time_base) / 2),
        )


def _clip_input(plan: ClipPlan, info: VideoInfo) -> ClipInput:
    views, geometry = plan.views, plan.geometry
    crops = np.arange(views.crops)[None, :, None] * len(views.frame_indices)
    colors = dali_color.to_ffmpeg(info.colors)
    return ClipInput(
        encoded=_NO_FILE,
        indices=views.frame_indices.numpy().astype(np.int32),
        scaled=np.array(geometry.scaled, np.float32),
        boxes=np.array(geometry.boxes, np.int32),
        colors=dali_color.to_gray(colors) if geometry.grayscale else colors,
        mirrored=np.array(geometry.flip, np.int32),
        order=(crops + views.positions.numpy()[:, None, :]).astype(np.int32).ravel(),
    )
