"""How videos may be read: the names of the choices, and their defaults; cheap to import for the command line."""

from __future__ import annotations

from typing import Literal

# Pixels that are not square: taken as square, or scaled to their true shape.
PixelAspect = Literal["apply", "ignore"]

# The side of a video along which three crops lie.
CropsAlong = Literal["width", "long_side"]

# The decoders: the best one that works, or one by name.
DECODERS = ("auto", "torchcodec", "pyav")

# What decodes the videos of a loader.
LoaderBackend = Literal["auto", "cpu", "dali", "torchcodec-gpu"]

# Names of the images in a folder of extracted frames, as common extraction scripts write them; numbers start at 1.
FRAME_TEMPLATE = "img_{:05d}.jpg"
