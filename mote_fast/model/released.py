"""The head's parameters in the released layout, and back, without loss."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mote_fast.errors import CheckpointError, ConfigError, one_line, quoted
from mote_fast.head.expert_designs import ProjectionExperts
from mote_fast.head.experts import TemporalExperts
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import VideoHead
from mote_fast.kernels.reference import Expert, pack_expert, unpack_expert
from mote_fast.runtime.shapes import check_shapes, plan_of, shapes_of
from mote_fast.runtime.skip_init import skip_init

# Our name of a block's tensor -> the released name; only the FFN is named differently.
_BLOCK_KEYS = (
    "ln_1.weight",
    "ln_1.bias",
    "attn.in_proj_weight",
    "attn.in_proj_bias",
    "attn.out_proj.weight",
    "attn.out_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
)
# A plain FFN is stored under CLIP's own names.
_PLAIN_KEYS = {"up": "c_fc", "down": "c_proj"}

_POSITIONS = "frame_position_embeddings.weight"
_TRAIN_CLASSES = "spe_cls_feature"


def head_from_released(state_dict: Mapping[str, Tensor], heads: int) -> VideoHead:
    """Build a head from a state dict in the released layout; its shapes give the sizes.

    Args:
        state_dict: the released ``fusion_model_state_dict``, without "module." prefixes.
        heads: attention heads, CLIP text width / 64; the layout does not record them.

    Raises:
        CheckpointError: keys are missing or unknown, or have the wrong shape.
    """
    state = dict(state_dict)
    layers = _count(state, r"transformer\.resblocks\.(\d+)\.")
    experts = _count(state, r"transformer\.resblocks\.0\.mlp\.fc_up\.(\d+)\.")
    train_classes = state.pop(_TRAIN_CLASSES, None)
    if train_classes is not None and train_classes.ndim != 2:
        raise CheckpointError(f"head: spe_cls_feature is {quoted(list(train_classes.shape))}, expected two dimensions")
    if layers == 0:
        if train_classes is None:
            raise CheckpointError("head: neither temporal layers nor spe_cls_feature found; is this a released head?")
        _refuse_leftovers(state)
        return VideoHead(HeadConfig(train_classes.shape[1], heads, 0, 0, header="mean"), train_classes)
    positions = _take(state, _POSITIONS)
    if positions.ndim != 2:
        raise CheckpointError(f"head: {_POSITIONS} is {quoted(list(positions.shape))}, expected two dimensions")
    try:
        converted: dict[str, Tensor] = {"frame_positions": positions}
        for layer in range(layers):
            released = f"transformer.resblocks.{layer}."
            converted |= {f"blocks.{layer}.{key}": _take(state, released + key) for key in _BLOCK_KEYS}
            converted |= _ffn_from_released(state, layer, experts)
        _refuse_leftovers(state)
        config = HeadConfig(positions.shape[1], heads, layers, experts)
        check_shapes(plan_of(lambda: VideoHead(config)), shapes_of(converted), "head")
        with skip_init():
            head = VideoHead(config, train_classes)
        head.to(positions.dtype)
        if train_classes is not None:
            converted["train_class_features"] = train_classes
        head.load_state_dict(converted)
    except (RuntimeError, ConfigError) as error:
        raise CheckpointError(f"head: shapes do not fit one another: {one_line(error)}") from error
    return head


def head_to_released(head: VideoHead) -> dict[str, Tensor]:
    """Return the head's tensors under the released names; ``head_from_released`` reads them back without loss.

    The layout does not include the inference options (``set_inference``).

    Raises:
        CheckpointError: the experts are not whole FFNs, which the layout cannot express.
    """
    if any(isinstance(block.mlp, ProjectionExperts) for block in head.temporal_blocks()):
        raise CheckpointError(
            f"head: the released layout has no place for expert_design={head.config.expert_design!r}; fold the head "
            "first, or save it as a folder"
        )
    released: dict[str, Tensor] = {}
    if head.train_class_features is not None:
        released[_TRAIN_CLASSES] = head.train_class_features.clone()
    if not head.layers:
        return released
    own = head.state_dict()
    released[_POSITIONS] = own["frame_positions"].clone()
    for layer, block in enumerate(head.temporal_blocks()):
        prefix = f"transformer.resblocks.{layer}."
        released |= {prefix + key: own[f"blocks.{layer}.{key}"].clone() for key in _BLOCK_KEYS}
        if isinstance(block.mlp, TemporalExperts):
            released |= {f"{prefix}mlp.{key}": value for key, value in _experts_to_released(block.mlp).items()}
        else:
            released |= {
                f"{prefix}mlp.{theirs}.{part}": own[f"blocks.{layer}.mlp.{ours}.{part}"].clone()
                for ours, theirs in _PLAIN_KEYS.items()
                for part in ("weight", "bias")
            }
    return released


def _ffn_from_released(state: dict[str, Tensor], layer: int, experts: int) -> dict[str, Tensor]:
    theirs = f"transformer.resblocks.{layer}.mlp."
    ours = f"blocks.{layer}.mlp."
    if experts == 0:
        return {
            f"{ours}{own}.{part}": _take(state, f"{theirs}{name}.{part}")
            for own, name in _PLAIN_KEYS.items()
            for part in ("weight", "bias")
        }
    rows = [
        Expert(
            *(_take(state, f"{theirs}{side}.{e}.{part}") for side in ("fc_up", "fc_dn") for part in ("weight", "bias"))
        )
        for e in range(experts)
    ]
    return {
        ours + "weight": torch.stack([pack_expert(row) for row in rows]),
        ours + "fusion": _take(state, theirs + "mote_fusion_weight"),
    }


def _experts_to_released(mlp: TemporalExperts) -> dict[str, Tensor]:
    released = {"mote_fusion_weight": mlp.fusion.clone()}
    for e, row in enumerate(mlp.weight.detach()):
        expert = unpack_expert(row, mlp.embed_dim)
        released |= {
            f"fc_up.{e}.weight": expert.w_up.clone(),
            f"fc_up.{e}.bias": expert.b_up.clone(),
            f"fc_dn.{e}.weight": expert.w_down.clone(),
            f"fc_dn.{e}.bias": expert.b_down.clone(),
        }
    return released


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """The number of consecutive indices, from 0, that the pattern's group matches in the keys."""
    found = {int(match[1]) for match in (re.match(pattern, key) for key in state) if match}
    if found and found != set(range(len(found))):
        raise CheckpointError(f"head: indices of {pattern!r} are not consecutive: {quoted(sorted(found))}")
    return len(found)


def _take(state: dict[str, Tensor], key: str) -> Tensor:
    try:
        return state.pop(key)
    except KeyError:
        raise CheckpointError(f"head: key {quoted(key)} is missing from the released state dict") from None


def _refuse_leftovers(state: Mapping[str, Tensor]) -> None:
    if state:
        raise CheckpointError(
            f"head: {len(state)} unknown keys in the released state dict, first {quoted(next(iter(state)))}"
        )
