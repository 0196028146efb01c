"""A list of videos as clips; every loader reads from it, with any decoding backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from mote_fast.data.decoding.decode import VideoSource, probe, read_frames
from mote_fast.data.decoding.frame_folders import FRAME_TEMPLATE, check_template, probe_frame_folder, read_frame_folder
from mote_fast.data.decoding.video_info import VideoInfo, check_read_size
from mote_fast.data.items import VideoItem
from mote_fast.data.plan import ClipPlan, ClipRecipe, plan_clip
from mote_fast.data.transforms import render
from mote_fast.errors import ConfigError


class Clip(NamedTuple):
    """The views of one video, not yet normalised."""

    pixels: Tensor  # uint8 [V, T, 3, S, S], crops of a clip side by side
    label: int


class VideoDataset:
    """Videos and the recipe that makes clips of them.

    A clip depends on the file and on (seed, epoch, index) alone: frames, crop, flip and grayscale are the same for
    every backend and number of workers.

    Args:
        items: the videos; see ``read_list``, ``read_csv``, ``scan_folder``, or write your own. An item with
            ``num_frames`` above 0 is a folder of extracted frames.
        recipe: how videos become clips.
        seed: seed of the run.
        decode_backend: "auto", "torchcodec" or "pyav", see ``read_frames``.
        frame_template: image names in folders of extracted frames, formatted with 1, 2, ...

    Raises:
        ConfigError: there are no items, or the template has no field for a number.
    """

    def __init__(
        self,
        items: Sequence[VideoItem],
        recipe: ClipRecipe,
        *,
        seed: int = 0,
        decode_backend: str = "auto",
        frame_template: str = FRAME_TEMPLATE,
    ) -> None:
        if not items:
            raise ConfigError("a data set needs at least one video")
        self.items = items
        self.recipe = recipe
        self.seed = seed
        self.decode_backend = decode_backend
        self.frame_template = check_template(frame_template)

    def __len__(self) -> int:
        return len(self.items)

    def plan(self, index: int, epoch: int = 0) -> tuple[VideoInfo, ClipPlan]:
        """Probe video ``index`` and plan its clips for ``epoch``.

        Raises:
            VideoError: the file cannot be read, or its frames would take too much memory once scaled.
        """
        item = self.items[index]
        if item.num_frames:
            info = probe_frame_folder(item.path, item.num_frames, self.frame_template)
        else:
            info = probe(item.path)
        return info, _plan(info, item.label, self.recipe, seed=self.seed, epoch=epoch, index=index)

    def load(self, index: int, epoch: int = 0) -> Clip:
        """Decode and render the clips of video ``index``.

        Raises:
            VideoError: the file cannot be read, or one of its frames cannot be decoded.
        """
        item = self.items[index]
        if not item.num_frames:
            return load_clip(
                item.path,
                item.label,
                self.recipe,
                seed=self.seed,
                epoch=epoch,
                index=index,
                decode_backend=self.decode_backend,
            )
        _, plan = self.plan(index, epoch)
        frames = read_frame_folder(item.path, plan.views.frame_indices, item.num_frames, self.frame_template)
        return _render(frames, plan, self.recipe)


def load_clip(
    source: VideoSource,
    label: int,
    recipe: ClipRecipe,
    *,
    seed: int,
    epoch: int,
    index: int,
    decode_backend: str = "auto",
) -> Clip:
    """Decode and render the clips of one video, given as a path or as the bytes of a file; see ``VideoDataset``.

    Raises:
        VideoError: the video cannot be read, or one of its frames cannot be decoded.
    """
    info = probe(source)
    plan = _plan(info, label, recipe, seed=seed, epoch=epoch, index=index)
    frames = read_frames(source, plan.views.frame_indices, decode_backend, info=info)
    return _render(frames, plan, recipe)


def _plan(info: VideoInfo, label: int, recipe: ClipRecipe, *, seed: int, epoch: int, index: int) -> ClipPlan:
    height, width = info.displayed_size(recipe.pixel_aspect)
    plan = plan_clip(info.num_frames, height, width, label, recipe, seed=seed, epoch=epoch, index=index)
    # A strip of a few rows becomes enormous when its short side is scaled up.
    height, width = plan.geometry.scaled
    check_read_size(info.path, len(plan.views.frame_indices), width, height, " after scaling")
    return plan


def _render(frames: Tensor, plan: ClipPlan, recipe: ClipRecipe) -> Clip:
    pixels = render(frames, plan.geometry, recipe.preprocessing)
    return Clip(plan.views.gather(pixels), plan.label)
