"""The settings of the steps that prepare data, with their defaults; cheap to import for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from mote_fast.errors import ConfigError

# Videos of each class in the few-shot lists of the paper.
PAPER_SHOTS = (2, 4, 8, 16)

# The base-to-novel protocol: training videos of each base class, its training lists, and the name of a list.
SHOTS = 16
SEEDS = (1, 2, 3)
BASE_VAL = "base_val.txt"

# Of x264.
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True)
class Encoding:
    """The settings of the output videos.

    Attributes:
        short_side: maximum in pixels; a smaller video keeps its size, except for the last row or column of an odd size.
        key_interval: frames from one key frame to the next.
        crf: x264's constant quality, 0 (lossless) to 51. At 20 a Kinetics clip of 340 x 256 differs from its source by
            40 dB, which is the noise of the source's compression, and takes twice the bytes; at 23 it is 2 dB worse.
        preset: x264's trade-off between time and file size.

    Raises:
        ConfigError: a value is out of range.
    """

    short_side: int = 256
    key_interval: int = 12
    crf: int = 20
    preset: str = "fast"

    def __post_init__(self) -> None:
        if self.short_side < 2 or self.short_side % 2 or self.key_interval < 1 or not 0 <= self.crf <= 51:
            raise ConfigError(
                "short_side must be even and at least 2, key_interval at least 1, crf 0 to 51; "
                f"got {self.short_side}, {self.key_interval} and {self.crf}"
            )
        if self.preset not in PRESETS:
            raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) of the output for a source of this size after rotation: even, and never larger."""
        scale = min(Fraction(1), Fraction(self.short_side, min(width, height)))
        across, down = (max(2, int(side * scale) // 2 * 2) for side in (width, height))
        return across, down


@dataclass(frozen=True)
class ScanOptions:
    """Options of a scan.

    Attributes:
        workers: number of processes.
        frames: frames to decode of each video, evenly spaced including first and last; 0 reads the packets only.
        min_frames: a video with fewer frames is reported as too short.
        time_limit: seconds per video.
    """

    workers: int = 1
    frames: int = 8
    min_frames: int = 8
    time_limit: float = 60.0

    def __post_init__(self) -> None:
        if self.workers < 1 or self.frames < 0 or self.min_frames < 1 or self.time_limit <= 0:
            raise ConfigError(
                "--workers and --min-frames must be at least 1, --scan-frames at least 0 and --time-limit above 0, "
                f"got {self.workers}, {self.min_frames}, {self.frames} and {self.time_limit}"
            )
