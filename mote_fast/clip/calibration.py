"""The videos on which an int8 tower is calibrated: those of the package, or the user's own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mote_fast.clip.towers import ClipTowers
from mote_fast.data.loading.view_frames import ViewRequest, read_view_frames
from mote_fast.data.transforms import evaluation_pixels
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, MissingVideoError, UndecodableVideoError, one_line, quoted
from mote_fast.runtime.environment import PRESETS
from mote_fast.runtime.reading import check_regular
from mote_fast.runtime.transfer import sha256_of


class Calibration:
    """Frames that show how large the activations of an image tower become.

    Args:
        videos: paths of video files; None takes the drawn videos of the package.
        backend: see ``mote_fast.data.read_frames``.
        time_limit: seconds for decoding one video, see ``read_view_frames``.

    Raises:
        ConfigError: ``videos`` is not a list of paths, or empty.
    """

    # Few are enough: each has hundreds of tokens, and only their largest magnitudes count.
    FRAMES_PER_VIDEO: ClassVar[int] = 2

    def __init__(
        self,
        videos: Iterable[str | os.PathLike[str]] | None = None,
        backend: str = "auto",
        time_limit: float | None = None,
    ) -> None:
        shipped = sorted((PRESETS / "demo").glob("*/*.mp4")) if videos is None else videos
        paths = [] if isinstance(shipped, (str, bytes, os.PathLike)) else list(shipped)
        if not paths or not all(isinstance(path, (str, os.PathLike)) for path in paths):
            raise ConfigError(f"calibrate must be a list of paths of videos, at least one, got {quoted(videos)}")
        self.videos = [os.fsdecode(path) for path in paths]
        self.backend = backend
        self.time_limit = time_limit

    def fingerprint(self) -> str:
        """Return the SHA-256 of the videos, in their order.

        Raises:
            VideoError: a file cannot be read.
        """
        digest = hashlib.sha256()
        for video in self.videos:
            try:
                check_regular(video)
                digest.update(sha256_of(Path(video)).encode())
            except FileNotFoundError as error:
                raise MissingVideoError(video, "no such file; check the path and the list's folder") from error
            except OSError as error:
                raise UndecodableVideoError(video, f"cannot be read ({one_line(error)})") from error
        return digest.hexdigest()

    def pixels(self, towers: ClipTowers) -> Tensor:
        """Return the frames as an image tower takes them, float32 [N, 3, S, S], normalised.

        Raises:
            VideoError: a video cannot be read.
        """
        preprocessing = towers.config.preprocessing
        count = self.FRAMES_PER_VIDEO
        request = ViewRequest(count, Views(1, 1), preprocessing, count, self.backend)
        found = (read_view_frames(video, request, self.time_limit) for video in self.videos)
        pixels = [evaluation_pixels(each.frames, preprocessing, displayed=each.displayed) for each in found]
        return torch.cat(pixels).flatten(0, 1)
