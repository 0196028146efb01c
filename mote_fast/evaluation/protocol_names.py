"""The names of protocols, scores and counted videos, and the views of each protocol; cheap to import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ProtocolName = Literal["closeset", "zeroshot", "halfclass", "mixed", "fewshot", "base2novel"]

# Default views of each protocol. Close-set tables have 1x1 too; half-class and mixed follow zero-shot.
DEFAULT_VIEWS: Mapping[ProtocolName, str] = {
    "closeset": "4x3",
    "zeroshot": "3x1",
    "halfclass": "3x1",
    "mixed": "3x1",
    "fewshot": "1x1",
    "base2novel": "1x1",
}
RETRIEVAL_VIEWS = "1x1"

# Of untrimmed videos, which have segments in place of views.
LOCALIZATION = "localization"

# Names of the two scores, in reports and result files.
RUNNING = "running"
FULL_CLASS = "full-class"

# The videos that an accuracy covers.
READABLE, ALL = "readable", "all"
