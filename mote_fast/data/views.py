"""Views of a video (clips x crops), planned so that a frame shared by several views is decoded and encoded once."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.data.sampling import sample_frames
from mote_fast.errors import ConfigError


class Views(NamedTuple):
    """The number of clips along time and of crops per frame on which a prediction is based."""

    clips: int
    crops: int

    @classmethod
    def parse(cls, text: str) -> Views:
        """Read "1x1", "3x1", "4x3": clips x crops.

        Raises:
            ConfigError: the text has another form, or the number of crops is not 1 or 3.
        """
        match = re.fullmatch(r"([1-9]\d*)x([13])", text) if isinstance(text, str) else None
        if match is None:
            raise ConfigError(
                f"views must be CLIPSxCROPS with 1 or 3 crops, such as '1x1', '3x1' or '4x3'; got {text!r}"
            )
        return cls(int(match[1]), int(match[2]))


class ViewPlan(NamedTuple):
    """The frames to decode, and the position of each view's frames among them."""

    frame_indices: Tensor  # int64 [U], ascending, distinct
    positions: Tensor  # int64 [clips, T], into frame_indices
    crops: int

    def gather(self, features: Tensor) -> Tensor:
        """Gather features or pixels of frames and crops into views; the crops of a clip are adjacent.

        Args:
            features: [U, crops, ...], such as features [U, crops, d] or pixels [U, crops, 3, S, S].

        Returns:
            [clips * crops, T, ...].
        """
        return features[self.positions.to(features.device)].transpose(1, 2).flatten(0, 1)


def plan_views(num_frames: int, frames: int, views: Views) -> ViewPlan:
    """Plan the views of a video of ``num_frames``, each view ``frames`` long (eq. (17))."""
    indices = sample_frames(num_frames, frames, mode="test", clips=views.clips)
    distinct, positions = torch.unique(indices, return_inverse=True)
    return ViewPlan(distinct, positions, views.crops)
