"""CLIP's weights as files of other projects lay them out, and as a model takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor, nn

from mote_fast.errors import CheckpointError, one_line
from mote_fast.runtime.weights import check_numbers, plain_state_dict, read_weights

# Names in OpenAI's published archives, and in state dicts taken from them, beside the weights.
_OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")
# Of text towers that transformers before 4.31 made.
_POSITIONS = "text.transformer.embeddings.position_ids"


def read_clip_state_dict(path: str | Path) -> tuple[dict[str, Tensor], bool]:
    """Read a CLIP state dict, and return whether the file is OpenAI's own.

    Returns:
        The float32 state dict without OpenAI's marks, and True for OpenAI's archives and their state dicts.

    Raises:
        CheckpointError: the file cannot be read, or holds no state dict.
    """
    content = read_weights(path)
    state = plain_state_dict(content.get("state_dict", content), path)
    from_openai = any(mark in state for mark in _OPENAI_MARKS)
    return {name: _as_float32(value) for name, value in state.items() if name not in _OPENAI_MARKS}, from_openai


def fit_state_dict(model: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Load ``state`` into ``model``; every name and shape must fit.

    Raises:
        CheckpointError: a name or shape does not fit, or a tensor holds other numbers than the model's, or NaN.
    """
    check_numbers(state, source, model.state_dict())
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{source}: does not fit the model: {one_line(error, 400)}") from error


def in_own_layout(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the layouts of other projects and of earlier releases of open_clip, as its ``load_checkpoint`` does."""
    state = dict(convert_state_dict(model, state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = dict(convert_to_custom_text_state_dict(state))
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name, None)
        # One number, with or without a dimension.
        if name in state and own is not None and state[name].numel() == 1:
            state[name] = state[name].reshape(own.shape)
    if getattr(model, "logit_bias", None) is not None and "logit_scale" in state:
        state.setdefault("logit_bias", torch.zeros_like(state["logit_scale"]))
    if not hasattr(model, _POSITIONS):
        state.pop(_POSITIONS, None)
    return state


def _as_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() and value.dtype != torch.float32 else value
