"""The video head: a temporal transformer whose FFNs are mixtures of temporal experts (spec section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast.attention import attend
from mote_fast.errors import ConfigError
from mote_fast.experts import INIT_STD, FeedForward, TemporalExperts, draw_experts, draw_temperatures
from mote_fast.modulation import modulation_factor

Header = Literal["mote", "plain", "mean"]

# Rows of the position table: CLIP's context length, as released, and so the most frames a view may have.
MAX_FRAMES = 77
LAYER_NORM_EPS = 1e-12


@dataclass(frozen=True)
class Streams:
    """What one training step of the head gives: cosine logits [B, C] of both streams, and the MSE regulariser."""

    routed_logits: Tensor
    merged_logits: Tensor
    mse: Tensor


class TemporalAttention(nn.Module):
    """Full multi-head attention over the frames of a view; parameters named as nn.MultiheadAttention names them."""

    def __init__(self, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.normal_(self.out_proj.weight, std=INIT_STD)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x [B, T, d]`` to the same shape."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.heads, -1))
        return self.out_proj(attend(*qkv.unbind(2)).flatten(-2))


class TemporalBlock(nn.Module):
    """One pre-norm layer: attention over frames, then the FFN, each with its residual."""

    mlp: TemporalExperts | FeedForward

    def __init__(self, embed_dim: int, heads: int, mlp: TemporalExperts | FeedForward) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.attn = TemporalAttention(embed_dim, heads)
        self.ln_2 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.mlp = mlp

    def attend(self, x: Tensor) -> Tensor:
        """The attention half: ``x + MHA(LN1(x))``, [B, T, d]."""
        return x + self.attn(self.ln_1(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x [B, T, d]`` to the same shape (inference)."""
        x = self.attend(x)
        return x + self.mlp(self.ln_2(x))


class VideoHead(nn.Module):
    """Turns frame features into video logits.

    Args:
        embed_dim: d, width of the frame and class features.
        heads: attention heads; MoTE uses CLIP's text width / 64.
        layers: L, temporal layers.
        experts: E, experts per layer; none means a plain FFN, and one computes the same as a plain FFN.
        train_class_features: [S, d], features of the fine-tuning label set. Without them (or all zero, the
            released code's placeholder) modulation has nothing to compare with and is left out.
        header: "mote", "plain" (one ordinary FFN per layer: the Text4Vis-like baseline) or "mean" (mean pooling
            alone: CLIP-Mean).

    Raises:
        ConfigError: sizes that do not fit together, or an unknown header.
    """

    train_class_features: Tensor | None

    def __init__(
        self,
        embed_dim: int,
        heads: int,
        layers: int,
        experts: int,
        train_class_features: Tensor | None = None,
        header: Header = "mote",
    ) -> None:
        super().__init__()
        if header not in ("mote", "plain", "mean"):
            raise ConfigError(f"header must be 'mote', 'plain' or 'mean', got {header!r}")
        if header != "mean" and layers < 1:
            raise ConfigError(f"layers must be at least 1, got {layers}; header='mean' has none")
        if heads < 1 or embed_dim % heads:
            raise ConfigError(f"heads must divide embed_dim: {embed_dim} is not a multiple of {heads}")
        self.embed_dim = embed_dim
        self.heads = heads
        self.header: Header = "plain" if header == "mote" and experts < 1 else header
        self.register_buffer("train_class_features", None)
        self.set_train_class_features(train_class_features)
        depth = 0 if self.header == "mean" else layers
        self.blocks = nn.ModuleList(
            TemporalBlock(
                embed_dim,
                heads,
                TemporalExperts(embed_dim, experts) if self.header == "mote" else FeedForward(embed_dim),
            )
            for _ in range(depth)
        )
        if depth:
            self.frame_positions = nn.Parameter(torch.empty(MAX_FRAMES, embed_dim))
            nn.init.normal_(self.frame_positions, std=INIT_STD)

    @property
    def layers(self) -> int:
        """L, the number of temporal layers."""
        return len(self.blocks)

    @property
    def experts(self) -> int:
        """E, the number of experts per layer; 1 for a plain FFN, 0 for mean pooling."""
        if not self.layers:
            return 0
        mlp = self._blocks()[0].mlp
        return mlp.experts if isinstance(mlp, TemporalExperts) else 1

    def set_train_class_features(self, features: Tensor | None) -> None:
        """Store the class features [S, d] of the fine-tuning label set, which modulation compares with."""
        if features is not None and (features.ndim != 2 or features.shape[1] != self.embed_dim):
            raise ConfigError(f"train_class_features must be [S, {self.embed_dim}], got {list(features.shape)}")
        self.train_class_features = features
        self.can_modulate = features is not None and bool(features.any())

    def forward(self, frames: Tensor, classes: Tensor, modulate: bool = True) -> Tensor:
        """Inference: cosine logits of each video against each class.

        Args:
            frames: [B, T, d], CLIP features of the frames of one view each.
            classes: [C, d], class features.
            modulate: apply temporal feature modulation (spec section 5), where fine-tuning classes are stored.

        Returns:
            [B, C], cosines (not yet times exp(logit_scale)).
        """
        return cosine_logits(self.features(frames, classes if modulate else None), classes)

    def features(self, frames: Tensor, classes: Tensor | None = None) -> Tensor:
        """Temporal features ``a * x + v`` of ``frames [B, T, d]``, same shape; ``a`` is 1 unless classes are given.

        Args:
            frames: [B, T, d].
            classes: [C, d], the test label set; given, the features are modulated for it.
        """
        self._check_frames(frames)
        if not self.layers:
            return frames
        x = self._embed(frames)
        for block in self.blocks:
            x = block(x)
        if classes is None or not self.can_modulate:
            return x + frames
        assert self.train_class_features is not None
        factor = modulation_factor(frames, F.normalize(classes, dim=-1), F.normalize(self.train_class_features, dim=-1))
        return factor.to(x.dtype)[:, None, None] * x + frames

    def streams(
        self,
        frames: Tensor,
        classes: Tensor,
        experts: Sequence[int] | Tensor | None = None,
        temperatures: Sequence[float] | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Streams:
        """Training: both streams over the same frame features (spec section 3).

        Args:
            frames: [B, T, d].
            classes: [C, d], features of the training label set.
            experts: the routed expert of each layer; None draws them. An int64 tensor [L] is read on the device, so a
                compiled or captured step can be fed new draws.
            temperatures: the merge temperature of each layer; None draws them. A tensor [L] works likewise.
            generator: source of the draws, experts first; None uses PyTorch's global one.

        Raises:
            ConfigError: the head has no layers to train, or a list does not have one valid entry per layer.
        """
        self._check_frames(frames)
        if not self.layers:
            raise ConfigError("header='mean' has no parameters to train; choose header='mote' or 'plain'")
        if experts is None:
            experts = draw_experts(self.layers, self.experts, generator)
        if temperatures is None:
            temperatures = draw_temperatures(self.layers, generator)
        self._check_draws(experts, temperatures)

        blocks = self._blocks()
        # Up to the first FFN the two streams are the same tensor, so it is computed once.
        shared = blocks[0].attend(self._embed(frames))
        y = blocks[0].ln_2(shared)
        y_routed, y_merged = blocks[0].mlp.pair(y, y, experts[0], temperatures[0])
        both = torch.cat((shared + y_routed, shared + y_merged))
        for block, expert, temperature in zip(blocks[1:], experts[1:], temperatures[1:], strict=True):
            both = block.attend(both)
            y_routed, y_merged = block.ln_2(both).chunk(2)
            both = both + torch.cat(block.mlp.pair(y_routed, y_merged, expert, temperature))
        routed, merged = (part + frames for part in both.chunk(2))
        return Streams(cosine_logits(routed, classes), cosine_logits(merged, classes), F.mse_loss(merged, frames))

    def fold(self) -> VideoHead:
        """Return an equivalent head for inference whose FFNs are plain: the merge is done once (spec section 4)."""
        folded = VideoHead(self.embed_dim, self.heads, self.layers, 0, header="mean" if not self.layers else "plain")
        folded.to(next(self.parameters(), torch.empty(0)))
        folded.set_train_class_features(self.train_class_features)
        own = {name: tensor for name, tensor in self.state_dict().items() if ".mlp." not in name}
        folded.load_state_dict(own, strict=False)
        for mine, other in zip(self._blocks(), folded._blocks(), strict=True):
            mlp = mine.mlp.fold() if isinstance(mine.mlp, TemporalExperts) else mine.mlp
            other.mlp.load_state_dict(mlp.state_dict())
        return folded.train(self.training)

    @classmethod
    def from_released(cls, state_dict: dict[str, Tensor], heads: int) -> VideoHead:
        """Build a head from a state dict in the released layout (spec section 2); sizes are read off its shapes.

        Args:
            state_dict: the released ``fusion_model_state_dict``, without "module." prefixes.
            heads: attention heads, CLIP text width / 64; the layout does not record them.

        Raises:
            CheckpointError: keys are missing, unknown or misshapen.
        """
        from mote_fast.released import head_from_released

        return head_from_released(state_dict, heads)

    def released_state_dict(self) -> dict[str, Tensor]:
        """Return the parameters in the released layout; ``from_released`` reads them back without loss."""
        from mote_fast.released import head_to_released

        return head_to_released(self)

    def _blocks(self) -> list[TemporalBlock]:
        return cast("list[TemporalBlock]", list(self.blocks))

    def _embed(self, frames: Tensor) -> Tensor:
        return frames + self.frame_positions[: frames.shape[1]]

    def _check_frames(self, frames: Tensor) -> None:
        if frames.ndim != 3 or frames.shape[2] != self.embed_dim:
            raise ConfigError(f"frames must be [B, T, {self.embed_dim}], got {list(frames.shape)}")
        if not 1 <= frames.shape[1] <= MAX_FRAMES:
            raise ConfigError(f"a view must have 1 to {MAX_FRAMES} frames, got {frames.shape[1]}")

    def _check_draws(self, experts: Sequence[int] | Tensor, temperatures: Sequence[float] | Tensor) -> None:
        for name, draws in (("experts", experts), ("temperatures", temperatures)):
            if len(draws) != self.layers:
                raise ConfigError(f"{name} needs one entry for each of the {self.layers} layers, got {len(draws)}")
        if isinstance(experts, Tensor):
            return
        wrong = [expert for expert in experts if not 0 <= expert < self.experts]
        if wrong:
            raise ConfigError(f"experts must lie in 0..{self.experts - 1}, got {wrong[0]}")


def cosine_logits(features: Tensor, classes: Tensor) -> Tensor:
    """Cosine of each video's mean feature with each class.

    Args:
        features: [B, T, d].
        classes: [C, d].

    Returns:
        [B, C] (spec section 3).
    """
    video = F.normalize(features.mean(1), dim=-1)
    return video @ F.normalize(classes, dim=-1).t()
