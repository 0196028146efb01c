"""What the options of rejection ask for: a threshold, words, or what a background looks like."""

from __future__ import annotations

import argparse
import re

from mote_fast.errors import ConfigError
from mote_fast.model.classifier import VideoClassifier
from mote_fast.timeline.rejection import Background


def rejection_of(model: VideoClassifier, arguments: argparse.Namespace) -> Background:
    """Return what ``VideoClassifier.timeline`` takes as ``background``, and ``classify`` as ``reject``.

    Raises:
        ConfigError: see ``check_rejection``.
        VideoError: the video of background cannot be read.
    """
    if arguments.background_video is not None:
        return model.embed(arguments.background_video)
    return check_rejection(arguments)


def check_rejection(arguments: argparse.Namespace) -> Background:
    """Read the options, before a model is loaded; None also for a video of background.

    Raises:
        ConfigError: a value is no number, "auto" or START-END.
    """
    if arguments.background_words is not None:
        return [word.strip() for word in arguments.background_words.split(",")]
    given = getattr(arguments, arguments.rejection)
    if given is None or given == "auto":
        return given
    number = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", given)
    if number is not None:
        return float(given)
    example = re.fullmatch(r"(\d+\.?\d*)-(\d+\.?\d*)", given)
    timed = arguments.rejection == "background"
    if example is not None and timed:
        return float(example[1]), float(example[2])
    choice = ", or START-END in seconds" if timed else ""
    raise ConfigError(f"--{arguments.rejection} must be auto, a level such as 0.4{choice}; got {given!r}")
