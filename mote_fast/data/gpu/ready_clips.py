"""Plans videos for a GPU's decoder: what it may decode is planned and checked, the rest is decoded on the CPU."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.video_info import VideoInfo
from mote_fast.data.gpu.decode_server import Abilities, ReadyClip
from mote_fast.data.gpu.routing import kind_of, read_header, why_not_gpu
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.samples import load_row
from mote_fast.data.plan import ClipPlan


class OwnClip(NamedTuple):
    """A video that was decoded on the CPU: its label, and why."""

    label: int
    reason: str


class ClipReader:
    """Reads one video after another, usually in a worker process.

    Args:
        dataset: the videos.
        takes: the videos that the decoder may get.
    """

    def __init__(self, dataset: VideoDataset, takes: Abilities) -> None:
        self._dataset = dataset
        self._takes = takes

    def __call__(self, task: tuple[int, int, str], row: Tensor) -> ReadyClip | OwnClip | Failure:
        """Read a video.

        Args:
            task: index, epoch, and why the decoder must not get it; empty if it may.
            row: uint8 [V, T, 3, S, S], filled if the video is decoded here.

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
        """Plan a video for the decoder, or say why it should not get it."""
        if self._dataset.items[index].num_frames:
            return "a folder of images"
        try:
            info, plan = self._dataset.plan(index, epoch)
            return ready_clip(os.path.abspath(info.path), info, plan, self._takes, index)
        # Reading on the CPU meets the same error, and reports it.
        except Exception:
            return "unreadable"


def ready_clip(
    source: str | bytes, info: VideoInfo, plan: ClipPlan, takes: Abilities, index: int = 0, order: Tensor | None = None
) -> ReadyClip | str:
    """Make the request for a decoder, or say why it should not get the video.

    Args:
        source: absolute path of the file, or its content.
        info: what ``probe`` says of it.
        plan: frames, geometry and label.
        takes: the videos that the decoder may get.
        index: of the video in its list.
        order: the frames of the result, as crop * U + frame; None takes the plan's views, one crop after another.

    Raises:
        UndecodableVideoError: the video cannot be opened.
        OSError: the file is gone.
    """
    header = read_header(source, info.path)
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    views, geometry = plan.views, plan.geometry
    count = len(views.frame_indices)
    frames, scaled = (count, info.height, info.width, 3), (count, *geometry.scaled, 3)
    frame_bytes = max(int(np.prod(shape, dtype=np.int64)) for shape in (frames, scaled))
    reason = why_not_gpu(info, header, size, frame_bytes, takes)
    if reason:
        return reason
    indices, timeline = views.frame_indices.numpy().astype(np.int32), info.timeline
    if order is None:
        # Crops of a clip follow one another.
        crops = np.arange(views.crops)[None, :, None] * count
        chosen = crops + views.positions.numpy()[:, None, :]
    else:
        chosen = order.numpy()
    stamps = (timeline.pts[at] for at in indices.tolist())
    seconds = tuple(float(pts * timeline.time_base) for pts in stamps if pts is not None)
    return ReadyClip(
        *(index, plan.label, source, kind_of(info, header), indices, chosen.astype(np.int32).ravel()),
        *(info.colors, frames, geometry, timeline.stream_index),
        seconds=(seconds, float(timeline.time_base) / 2),
    )
