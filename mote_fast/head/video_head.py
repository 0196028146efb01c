"""The video head: a temporal transformer whose FFNs are mixtures of temporal experts (eq. (3) to eq. (7))."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast.errors import ConfigError
from mote_fast.head.expert_designs import LayerFFN, make_experts
from mote_fast.head.experts import INIT_STD, FeedForward
from mote_fast.head.head_choices import Aggregation
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.modulation import modulation_factor
from mote_fast.head.temporal_block import TemporalBlock

# Rows of the position table: CLIP's context length, as in the official code; hence the maximum frames per view.
MAX_FRAMES = 77


class VideoHead(nn.Module):
    """Turns frame features into video logits.

    Args:
        config: its sizes and options.
        train_class_features: [S, d], features of the fine-tuning label set. Without them (or if all are zero, the
            official code's placeholder) there is no modulation.

    Attributes:
        config: sizes and options of the head, as built or as changed by ``set_inference``.

    Raises:
        ConfigError: the class features have another width.
    """

    train_class_features: Tensor | None

    def __init__(self, config: HeadConfig, train_class_features: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("train_class_features", None)
        self.set_train_class_features(train_class_features)
        self.blocks = nn.ModuleList(
            TemporalBlock(config.embed_dim, config.heads, self._make_ffn()) for _ in range(config.layers)
        )
        if config.layers:
            self.frame_positions = nn.Parameter(torch.empty(MAX_FRAMES, config.embed_dim))
            nn.init.normal_(self.frame_positions, std=INIT_STD)

    @property
    def embed_dim(self) -> int:
        """d, the width of the frame and class features."""
        return self.config.embed_dim

    @property
    def layers(self) -> int:
        """L, the number of temporal layers."""
        return self.config.layers

    @property
    def experts(self) -> int:
        """E, the number of experts per layer; 1 for a plain FFN, 0 for mean pooling."""
        return self.config.experts

    def set_inference(
        self,
        *,
        aggregation: Aggregation | None = None,
        modulation: bool | None = None,
        modulation_top_k: int | None = None,
        modulation_gamma: float | None = None,
    ) -> None:
        """Change the inference options; omitted ones stay as they are. Training is unaffected.

        Args:
            aggregation: "merge": one pass with the merged experts; "ensemble": one pass for each expert, used in every
                layer, and the mean of their logits; "random": an expert drawn for each video and layer, all with
                equal chances (Table 2c).
            modulation: apply temporal feature modulation (eq. (15)).
            modulation_top_k: its K (Table 7b).
            modulation_gamma: its gamma (Table 2f).

        Raises:
            ConfigError: a value is unknown or out of range; nothing is changed.
        """
        given = {
            "aggregation": aggregation,
            "modulation": modulation,
            "modulation_top_k": modulation_top_k,
            "modulation_gamma": modulation_gamma,
        }
        self.config = replace(self.config, **{name: value for name, value in given.items() if value is not None})

    def set_train_class_features(self, features: Tensor | None) -> None:
        """Store the class features [S, d] of the fine-tuning label set, which modulation compares with."""
        if features is not None and (features.ndim != 2 or features.shape[1] != self.embed_dim):
            raise ConfigError(f"train_class_features must be [S, {self.embed_dim}], got {list(features.shape)}")
        self.train_class_features = features
        self.can_modulate = features is not None and bool(features.any())

    def forward(
        self,
        frame_features: Tensor,
        class_features: Tensor,
        modulate: bool = True,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Inference: cosine logits of each video against each class.

        Args:
            frame_features: [B, T, d], CLIP features of the frames of one view each.
            class_features: [C, d], class features; the cosines take them as they are, whatever the head's dtype.
            modulate: apply temporal feature modulation, where it is on and fine-tuning classes are stored.
            generator: source of ``aggregation="random"``; None uses PyTorch's global one.

        Returns:
            [B, C], cosines (not yet times exp(logit_scale)).
        """
        chosen = class_features if modulate else None
        return self.cosines(self.features(frame_features, chosen, generator=generator), class_features)

    def cosines(self, features: Tensor, class_features: Tensor) -> Tensor:
        """Cosine logits [B, C] of temporal features [B, T, d], from ``features``, against classes [C, d]."""
        if self._aggregation == "ensemble":
            # Each expert's mean frame has unit length, so the product of their mean with a class is a mean of cosines.
            return features.mean(1) @ F.normalize(class_features.to(features), dim=-1).t()
        return cosine_logits(features, class_features)

    def features(
        self,
        frame_features: Tensor,
        class_features: Tensor | None = None,
        *,
        expert: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Temporal features ``a * x + v``, [B, T, d]; ``a`` is 1 unless class features are given.

        Args:
            frame_features: [B, T, d].
            class_features: [C, d], the test label set; given, the features are modulated for it, if modulation is on.
            expert: use this expert alone, in every layer; None applies ``aggregation``. An ensemble's features are the
                mean over its experts, each scaled to a unit mean frame: they rank classes as its logits do.
            generator: as in ``forward``.

        Raises:
            ConfigError: the frames do not fit the head, or it has no such expert.
        """
        self.check_frames(frame_features)
        if expert is not None and not 0 <= expert < max(self.experts, 1):
            raise ConfigError(f"expert must lie in 0..{max(self.experts, 1) - 1}, got {expert}")
        if not self.layers:
            return frame_features
        if expert is None and self._aggregation == "ensemble":
            passes = [self.features(frame_features, class_features, expert=expert) for expert in range(self.experts)]
            return torch.stack([one / one.mean(1, keepdim=True).norm(dim=-1, keepdim=True) for one in passes]).mean(0)
        x = self._temporal(frame_features, expert, generator)
        if class_features is None or not (self.config.modulation and self.can_modulate):
            return x + frame_features
        assert self.train_class_features is not None
        factor = modulation_factor(
            frame_features,
            F.normalize(class_features.to(frame_features), dim=-1),
            F.normalize(self.train_class_features, dim=-1),
            top_k=self.config.modulation_top_k,
            gamma=self.config.modulation_gamma,
        )
        return factor.to(x.dtype)[:, None, None] * x + frame_features

    def fold(self) -> VideoHead:
        """Return an equivalent head for inference whose FFNs are plain: the merge is done once (eq. (13)).

        A head with an ensemble or random routing has no merge; ``fold`` returns the head itself.
        """
        if self._aggregation != "merge":
            return self
        own = self.config
        folded = VideoHead(
            HeadConfig(
                own.embed_dim,
                own.heads,
                own.layers,
                experts=0,
                header="mean" if own.header == "mean" else "plain",
                modulation=own.modulation,
                modulation_top_k=own.modulation_top_k,
                modulation_gamma=own.modulation_gamma,
            )
        )
        folded.to(next(self.parameters(), torch.empty(0)))
        folded.set_train_class_features(self.train_class_features)
        unchanged = {name: tensor for name, tensor in self.state_dict().items() if ".mlp." not in name}
        folded.load_state_dict(unchanged, strict=False)
        for mine, other in zip(self.temporal_blocks(), folded.temporal_blocks(), strict=True):
            other.mlp.load_state_dict(mine.mlp.fold().state_dict())
        return folded.train(self.training)

    def temporal_blocks(self) -> list[TemporalBlock]:
        """The layers in order."""
        return cast("list[TemporalBlock]", list(self.blocks))

    def check_frames(self, frame_features: Tensor) -> None:
        """Raise ConfigError unless ``frame_features`` are [B, T, d] with no more frames than there are positions."""
        if frame_features.ndim != 3 or frame_features.shape[2] != self.embed_dim:
            raise ConfigError(f"frames must be [B, T, {self.embed_dim}], got {list(frame_features.shape)}")
        if not 1 <= frame_features.shape[1] <= MAX_FRAMES:
            raise ConfigError(f"a view must have 1 to {MAX_FRAMES} frames, got {frame_features.shape[1]}")

    def embed_frames(self, frame_features: Tensor) -> Tensor:
        """Input of the first layer, [B, T, d]: the frames with their positions added."""
        return frame_features + self.frame_positions[: frame_features.shape[1]]

    def run_routed(self, frame_features: Tensor, index: Tensor) -> Tensor:
        """Output of the last layer, [B, T, d], each video through its own experts; the head has layers.

        Args:
            frame_features: [B, T, d].
            index: int64 [L, B], or [L, B, 2] for separate up and down projections; read on the device, unchecked.
        """
        x = self.embed_frames(frame_features)
        for block, chosen in zip(self.temporal_blocks(), index, strict=True):
            x = block.attend(x)
            x = x + block.mlp.routed(block.ln_2(x), chosen)
        return x

    def _make_ffn(self) -> LayerFFN:
        config = self.config
        if config.header == "plain":
            return FeedForward(config.embed_dim)
        return make_experts(config.embed_dim, config.experts, config.expert_design, config.expert_init)

    @property
    def _aggregation(self) -> Aggregation:
        # With one FFN all aggregations agree; folding and merging are the cheapest and draw nothing.
        return self.config.aggregation if self.experts > 1 else "merge"

    def _temporal(self, frame_features: Tensor, expert: int | None, generator: torch.Generator | None) -> Tensor:
        """The output x of the last layer at inference, [B, T, d]."""
        if expert is not None:
            index = torch.full((self.layers, len(frame_features)), expert, device=frame_features.device)
            return self.run_routed(frame_features, index)
        if self._aggregation == "random":
            source = frame_features.device if generator is None else generator.device
            shape = (self.layers, len(frame_features), *((2,) if self.config.expert_design == "up_down" else ()))
            index = torch.randint(self.experts, shape, generator=generator, device=source)
            return self.run_routed(frame_features, index.to(frame_features.device))
        x = self.embed_frames(frame_features)
        for block in self.blocks:
            x = block(x)
        return x


def cosine_logits(features: Tensor, class_features: Tensor) -> Tensor:
    """Cosine of each video's mean feature with each class.

    Args:
        features: [B, T, d].
        class_features: [C, d].

    Returns:
        [B, C], float32 or float64 even under autocast: the later scale of about 100 would magnify the rounding of
        bfloat16 to half a logit (eq. (12)).
    """
    dtype = torch.promote_types(torch.promote_types(features.dtype, class_features.dtype), torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        video = F.normalize(features.to(dtype).mean(1), dim=-1)
        return video @ F.normalize(class_features.to(dtype), dim=-1).t()
