"""What a model is made of unless something else is asked for; cheap to import for the command line."""

from __future__ import annotations

# The model of commands that are given none.
DEFAULT_MODEL = "mote-b16-k400"

# Begins the name of CLIP with mean pooling: "clip:ARCHITECTURE/TAG", in open_clip's names.
CLIP_SCHEMA = "clip:"

# Begins the name of a repository of the Hugging Face hub, "hf-hub:ORGANIZATION/NAME", as timm and open_clip spell it.
HUB_SCHEMA = "hf-hub:"

# Frames per view of the paper's main results.
DEFAULT_FRAMES = 8
DEFAULT_EXPERTS = 4

# Share of the tuned image tower at which the official test scripts read every checkpoint.
DEFAULT_INTERPOLATION = 0.99
