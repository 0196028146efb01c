"""The sizes and options of a video head in one value, checked at construction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mote_fast.errors import ConfigError
from mote_fast.head.expert_designs import ExpertDesign
from mote_fast.head.experts import ExpertInit
from mote_fast.head.head_choices import Aggregation, Header
from mote_fast.head.modulation import GAMMA, TOP_K
from mote_fast.runtime.checks import check_choice, check_count
from mote_fast.runtime.shapes import MAX_LAYERS


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """The options of a head beyond its sizes, with the paper's method as defaults.

    With one FFN per layer or none, the options about experts have no effect.

    Attributes:
        header: "mote", "plain" (one ordinary FFN per layer) or "mean" (mean pooling, CLIP-Mean).
        expert_init: whether each expert has its own initial draw or all share one (Table 2a).
        expert_design: which projections are experts, and how they are routed (Table 7a).
        aggregation: how the experts are combined at test: merged weights, averaged logits, one drawn (Table 2c).
        modulation: temporal feature modulation at test (eq. (15)).
        modulation_top_k: K, class names compared on each side.
        modulation_gamma: gamma, sharpness of the factor.

    Raises:
        ConfigError: an option is unknown or out of range.
    """

    header: Header = "mote"
    expert_init: ExpertInit = "different"
    expert_design: ExpertDesign = "ffn"
    aggregation: Aggregation = "merge"
    modulation: bool = True
    modulation_top_k: int = TOP_K
    modulation_gamma: float = GAMMA

    def __post_init__(self) -> None:
        check_choice("header", self.header, Header)
        check_choice("expert_init", self.expert_init, ExpertInit)
        check_choice("expert_design", self.expert_design, ExpertDesign)
        check_choice("aggregation", self.aggregation, Aggregation)
        check_count("modulation_top_k", self.modulation_top_k, 1)
        if not 0 < self.modulation_gamma < math.inf:
            raise ConfigError(f"modulation_gamma must be above 0, got {self.modulation_gamma}")

    def check_depth(self, layers: int, experts: int) -> None:
        """Raise ConfigError unless a head of this kind can have ``layers`` layers of ``experts`` experts each."""
        check_count("layers", layers, 0, MAX_LAYERS)
        if layers < 1 and self.header != "mean":
            raise ConfigError(f"layers must be at least 1, got {layers}; header 'mean' has none")
        check_count("experts", experts, 0)


@dataclass(frozen=True)
class HeadConfig(HeadOptions):
    """A head: its sizes and its options.

    Attributes:
        embed_dim: d, width of the frame and class features.
        heads: attention heads; MoTE uses CLIP's text width / 64.
        layers: L, temporal layers; 0 if ``header`` is "mean".
        experts: E, experts per layer; without experts a layer has a plain FFN, which counts as 1; 0 if ``header`` is
            "mean".

    Raises:
        ConfigError: sizes that do not fit together, or an option that is unknown or out of range.
    """

    embed_dim: int
    heads: int
    layers: int
    experts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_depth(self.layers, self.experts)
        check_count("embed_dim", self.embed_dim, 1)
        check_count("heads", self.heads, 0)
        if self.heads < 1 or self.embed_dim % self.heads:
            raise ConfigError(f"heads must divide embed_dim: {self.embed_dim} is not a multiple of {self.heads}")
        # Equal heads have equal configurations, however they were requested.
        if self.header == "mean":
            self._settle(layers=0, experts=0)
        elif self.header == "plain" or self.experts < 1:
            self._settle(header="plain", experts=1)

    def _settle(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)
