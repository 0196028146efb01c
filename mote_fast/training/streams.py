"""The training passes through a video head, each with its choice of experts per layer (eq. (8) to eq. (10)).

Each pass returns features [B, T, d], unmodulated: the output of the last layer plus the frames. ``experts``,
``down_experts`` and ``temperatures`` have one entry per layer; a tensor [L] is read on the device, unchecked.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mote_fast.errors import ConfigError
from mote_fast.head.experts import merge_weights
from mote_fast.head.video_head import VideoHead


def stream_features(
    head: VideoHead,
    frame_features: Tensor,
    experts: Sequence[int] | Tensor,
    temperatures: Sequence[float] | Tensor,
    down_experts: Sequence[int] | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Features of the routed and of the merged stream, computed together.

    Args:
        head: a head with layers.
        frame_features: [B, T, d].
        experts: the routed expert of each layer.
        temperatures: the merge temperature of each layer.
        down_experts: the routed expert of the down projection, for ``expert_design="up_down"``; other designs do not
            route it separately. None takes ``experts``.

    Raises:
        ConfigError: the frames do not fit the head, or draws do not have one valid entry per layer.
    """
    head.check_frames(frame_features)
    _check_length(head, "temperatures", temperatures)
    device = frame_features.device
    routes = torch.as_tensor(_routes(head, experts, down_experts), device=device).unbind()
    # Those of all layers at once: layer by layer they would take the host as long as the experts.
    weights = merge_weights(head.experts, temperatures).to(device).unbind()
    blocks = head.temporal_blocks()
    # Up to the first FFN the two streams are the same tensor, so it is computed once.
    shared = blocks[0].attend(head.embed_frames(frame_features))
    normed = blocks[0].ln_2(shared)
    both = torch.cat([shared + y for y in blocks[0].mlp.pair(normed, normed, routes[0], weights[0])])
    for block, route, shares in zip(blocks[1:], routes[1:], weights[1:], strict=True):
        both = block.attend(both)
        y_routed, y_merged = block.ln_2(both).chunk(2)
        both = both + torch.cat(block.mlp.pair(y_routed, y_merged, route, shares))
    routed, merged = (both.view(2, *frame_features.shape) + frame_features).unbind()
    return routed, merged


def routed_features(
    head: VideoHead,
    frame_features: Tensor,
    experts: Sequence[int] | Tensor,
    down_experts: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """Features of the routed stream alone; arguments as in ``stream_features``."""
    head.check_frames(frame_features)
    routes = torch.as_tensor(_routes(head, experts, down_experts), device=frame_features.device)
    return (
        head.run_routed(frame_features, routes[:, None].expand(-1, len(frame_features), *routes.shape[1:]))
        + frame_features
    )


def every_expert_features(head: VideoHead, frame_features: Tensor) -> Tensor:
    """Features of one stream per expert, which runs in every layer; [E * B, T, d], ordered by expert."""
    head.check_frames(frame_features)
    index = torch.arange(head.experts, device=frame_features.device).repeat_interleave(len(frame_features))
    repeated = frame_features.repeat(head.experts, 1, 1)
    return head.run_routed(repeated, index.expand(head.layers, -1)) + repeated


def merged_features(head: VideoHead, frame_features: Tensor, temperatures: Sequence[float] | Tensor) -> Tensor:
    """Features of the merged stream alone; arguments as in ``stream_features``."""
    head.check_frames(frame_features)
    _check_length(head, "temperatures", temperatures)
    x = head.embed_frames(frame_features)
    for block, temperature in zip(head.temporal_blocks(), temperatures, strict=True):
        x = block.attend(x)
        x = x + block.mlp.at_temperature(block.ln_2(x), temperature)
    return x + frame_features


def _routes(
    head: VideoHead, experts: Sequence[int] | Tensor, down_experts: Sequence[int] | Tensor | None
) -> Sequence[int] | Tensor:
    """The checked experts of each layer; paired as [L, 2] if the down projection is routed separately."""
    _check_experts(head, "experts", experts)
    if head.config.expert_design != "up_down" or down_experts is None:
        return experts
    _check_experts(head, "down_experts", down_experts)
    return torch.stack((torch.as_tensor(experts), torch.as_tensor(down_experts)), -1)


def _check_experts(head: VideoHead, name: str, experts: Sequence[int] | Tensor) -> None:
    _check_length(head, name, experts)
    wrong = [] if isinstance(experts, Tensor) else [e for e in experts if not 0 <= e < head.experts]
    if wrong:
        raise ConfigError(f"{name} must lie in 0..{head.experts - 1}, got {wrong[0]}")


def _check_length(head: VideoHead, name: str, draws: Sequence[float] | Tensor) -> None:
    if len(draws) != head.layers:
        raise ConfigError(f"{name} needs one entry for each of the {head.layers} layers, got {len(draws)}")
