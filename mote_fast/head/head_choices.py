"""The names of a head's kinds and of the ways to use its experts; cheap to import for the command line."""

from __future__ import annotations

from typing import Literal

Header = Literal["mote", "plain", "mean"]

# How inference uses the experts (paper Table 2c).
Aggregation = Literal["merge", "ensemble", "random"]
