"""Prepares videos for the DALI graph: plans, checks, and reads them from disk or decodes them."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from dataclasses import dataclass

import numpy as np

from mote_fast.data.dali import color as dali_color
from mote_fast.data.dali.pipeline import ClipInput, Device
from mote_fast.data.dali.routing import Chooser, kind_of, read_header, why_not_dali
from mote_fast.data.dali.trial import Trial
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.decode import read_frames
from mote_fast.data.decoding.frame_folders import read_frame_folder
from mote_fast.data.decoding.video_info import VideoInfo
from mote_fast.data.plan import ClipPlan

logger = logging.getLogger(__name__)

# DALI accepts no empty arrays; these fill the inputs that the graph does not use.
_NO_FILE = np.zeros(1, np.uint8)
_NO_FRAMES = np.zeros((1, 1, 1, 3), np.uint8)


@dataclass(frozen=True)
class ReadyClip:
    """A video prepared for the graph: list index, label, input, and the shape [U, H, W, 3] expected of its frames."""

    index: int
    label: int
    item: ClipInput
    shape: tuple[int, ...]


class ClipPreparer:
    """Prepares videos; thread-safe.

    Args:
        dataset: the videos.
        device: DALI's device.
        trial: measures the first video of each kind.
    """

    def __init__(self, dataset: VideoDataset, device: Device, trial: Trial) -> None:
        self._dataset = dataset
        self._device: Device = device
        self._trial = trial
        self._chooser = Chooser()
        self._refused: dict[int, str] = {}
        self._passed_over: Counter[str] = Counter()
        self._lock = threading.Lock()

    def refuse(self, index: int, reason: str) -> None:
        """Never give this video to DALI again."""
        self._refused[index] = reason

    def pop_passed_over(self) -> Counter[str]:
        """The reasons why videos did not go to DALI since the last call, with the number of videos for each."""
        with self._lock:
            counts, self._passed_over = self._passed_over, Counter()
        return counts

    def prepare(self, index: int, info: VideoInfo, plan: ClipPlan) -> ReadyClip:
        """Read video ``index`` as planned: as a file for DALI to decode, or as frames.

        Raises:
            VideoError: the video cannot be read.
        """
        if self._dataset.items[index].num_frames:
            return self._pass_over(index, info, plan, "a folder of images")
        if index in self._refused:
            return self._pass_over(index, info, plan, self._refused[index])
        header = read_header(info.path)
        reason = why_not_dali(info, header, os.path.getsize(info.path), self._device)
        if reason is not None:
            return self._pass_over(index, info, plan, reason)
        colors = dali_color.to_ffmpeg(info.colors)
        encoded = _clip_input(plan, colors, encoded=np.fromfile(info.path, np.uint8))
        kind = kind_of(info, header)
        if not self._chooser.prefers_dali(
            kind, lambda: self._trial.measure(encoded, lambda: self._decode(index, info, plan))
        ):
            return self._pass_over(index, info, plan, f"{kind.codec} in {kind.container}: refused, or slower")
        return ReadyClip(index, plan.label, encoded, (len(encoded.indices), info.height, info.width, 3))

    def _pass_over(self, index: int, info: VideoInfo, plan: ClipPlan, reason: str) -> ReadyClip:
        logger.debug("%s: decoded before DALI: %s", info.path, reason)
        with self._lock:
            self._passed_over[reason] += 1
        item = self._decode(index, info, plan)
        return ReadyClip(index, plan.label, item, item.frames.shape)

    def _decode(self, index: int, info: VideoInfo, plan: ClipPlan) -> ClipInput:
        dataset, item, indices = self._dataset, self._dataset.items[index], plan.views.frame_indices
        if item.num_frames:
            frames = read_frame_folder(item.path, indices, item.num_frames, dataset.frame_template)
        else:
            frames = read_frames(item.path, indices, dataset.decode_backend, info=info)
        return _clip_input(plan, dali_color.identity(), frames=frames.numpy())


def _clip_input(
    plan: ClipPlan, colors: np.ndarray, *, encoded: np.ndarray = _NO_FILE, frames: np.ndarray = _NO_FRAMES
) -> ClipInput:
    views, geometry = plan.views, plan.geometry
    crops = np.arange(views.crops)[None, :, None] * len(views.frame_indices)
    return ClipInput(
        is_encoded=np.array(encoded is not _NO_FILE),
        encoded=encoded,
        indices=views.frame_indices.numpy().astype(np.int32),
        frames=frames,
        scaled=np.array(geometry.scaled, np.float32),
        boxes=np.array(geometry.boxes, np.int32),
        colors=dali_color.to_gray(colors) if geometry.grayscale else colors,
        mirrored=np.array(geometry.flip, np.int32),
        order=(crops + views.positions.numpy()[:, None, :]).astype(np.int32).ravel(),
    )
