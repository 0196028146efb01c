"""The image tower of a released checkpoint and the original CLIP that it needs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from mote_fast.clip.clip_config import name_of_shapes, vision_config_of_state_dict
from mote_fast.clip.pretrained import load_towers
from mote_fast.clip.published import Activation
from mote_fast.clip.towers import ClipTowers
from mote_fast.data.transforms import Preprocessing
from mote_fast.errors import ActivationMismatchError, CheckpointError, ConfigError, naming, quoted
from mote_fast.head.video_head import VideoHead
from mote_fast.model.original import OriginalClip, record_original
from mote_fast.runtime.weights import check_numbers


def check_released(towers: ClipTowers, head: VideoHead) -> None:
    """Raise CheckpointError if a released file of this model would be read as another model."""
    config = towers.config
    try:
        heads = config.text_heads
    except ConfigError:
        heads = None
    if head.layers and head.config.heads != heads:
        raise CheckpointError(
            f"the released layout does not record heads={head.config.heads}, and takes text width / 64, which is "
            f"{heads or 'not defined'} for {config.name}; save the model as a folder"
        )
    if config.preprocessing != Preprocessing(towers.image_size):
        raise CheckpointError(
            f"the released layout does not record preprocessing, and {config.name} does not take OpenAI's; save the "
            "model as a folder"
        )


def original_clip(
    path: str | Path, visual: Mapping[str, Tensor], clip: str | Path | None, activation: Activation | None
) -> ClipTowers:
    """Load the CLIP that a released checkpoint was tuned from.

    Args:
        path: the checkpoint, for messages.
        visual: its ``model_state_dict``; the shapes name the architecture where ``clip`` is no file.
        clip: OpenAI's .pt file, an open_clip tag, or None for the tag "openai".
        activation: activation of the file ``clip``, if its origin is unknown.

    Raises:
        CheckpointError: the architecture is unknown, or the original CLIP cannot be found, read or fitted.
        ActivationMismatchError: the original CLIP was not trained with QuickGELU.
    """
    if activation == "gelu":
        raise ActivationMismatchError(
            f"{path}: released MoTE weights were trained with quick_gelu; leave activation out"
        )
    if clip is not None and Path(clip).is_file():
        towers = load_towers(None, clip, activation=activation)
    else:
        with naming(path):
            name = name_of_shapes(vision_config_of_state_dict(visual))
        if name is None:
            raise CheckpointError(
                f"{path}: its image tower is none that open_clip names; pass clip=, the original CLIP"
            )
        try:
            towers = load_towers(name, clip or "openai", activation=activation)
        except CheckpointError as error:
            raise CheckpointError(
                f"{path}: needs the original CLIP; pass clip=, OpenAI's .pt file ({error})"
            ) from error
    if towers.config.activation != "quick_gelu":
        raise ActivationMismatchError(
            f"{path}: released MoTE weights were trained with quick_gelu, but {clip} was trained with "
            f"{towers.config.activation}"
        )
    # The official code knows no other, whatever CLIP it starts from.
    towers.config = replace(towers.config, preprocessing=Preprocessing(towers.image_size))
    return towers


def record_released(towers: ClipTowers, clip: str | Path | None) -> OriginalClip:
    """Describe what ``original_clip`` loaded."""
    is_file = clip is not None and Path(clip).is_file()
    return record_original(towers, None if is_file else towers.config.name, clip or "openai")


def interpolate_visual(towers: ClipTowers, tuned: Mapping[str, Tensor], share: float, path: str | Path) -> None:
    """Set the image tower to ``share * tuned + (1 - share) * original``, and the logit scale to the tuned one.

    ``share`` is that of eq. (21), in [0, 1].

    Raises:
        CheckpointError: names or shapes of ``tuned`` differ from the towers', or a value is not finite.
    """
    state = towers.model.state_dict()
    expected = {name for name in state if name.startswith("visual.")}
    found = {name for name in tuned if name.startswith("visual.")}
    if expected != found:
        raise CheckpointError(f"{path}: its image tower does not fit the original CLIP: {sorted(expected ^ found)[:4]}")
    used = expected | {"logit_scale"}
    check_numbers({name: value for name, value in tuned.items() if name in used}, path, state)
    for name in expected:
        if tuned[name].shape != state[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {list(tuned[name].shape)}, the original CLIP has {list(state[name].shape)}"
            )
        state[name] = share * tuned[name].float() + (1.0 - share) * state[name]
    if "logit_scale" in tuned:
        if tuned["logit_scale"].numel() != 1:
            raise CheckpointError(
                f"{path}: logit_scale is {quoted(list(tuned['logit_scale'].shape))}, expected a number"
            )
        state["logit_scale"] = tuned["logit_scale"].float().reshape(state["logit_scale"].shape)
    towers.model.load_state_dict(state)
