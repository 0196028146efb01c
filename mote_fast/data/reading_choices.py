"""How videos may be read: the names of the choices, and their defaults; cheap to import for the command line."""

from __future__ import annotations

from typing import Literal

# Pixels that are not square: taken as square, or scaled to their true shape.
PixelAspect = Literal["apply", "ignore"]

# The side of a video along which three crops lie.
CropsAlong = Literal["width", "long_side"]

# The decoders: the best one that works, or one by name.
DECODERS = ("auto", "torchcodec", "pyav")

# What decodes videos: the CPU, a decoder of a GPU, or the one that ``choose_decoder`` chooses.
LoaderBackend = Literal["auto", "cpu", "dali", "torchcodec-gpu"]

# The decoders of a GPU, and the module that has the ``DECODER``. Where nothing can be measured, the first one that is
# installed serves. To remove one, delete its module, its line here, and its name in ``LoaderBackend``.
GPU_DECODERS = {
    "dali": "mote_fast.data.dali.server",
    "torchcodec-gpu": "mote_fast.data.gpu.torchcodec_gpu",
}

# Names of the images in a folder of extracted frames, as common extraction scripts write them; numbers start at 1.
FRAME_TEMPLATE = "img_{:05d}.jpg"
