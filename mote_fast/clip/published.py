"""What open_clip documents about published weights: the activation and preprocessing that they were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import open_clip

from mote_fast.data.transforms import CLIP_MEAN, CLIP_STD, Preprocessing
from mote_fast.errors import ConfigError

Activation = Literal["quick_gelu", "gelu"]

QUICK_SUFFIX = "-quickgelu"


def base_name(name: str) -> str:
    """Return the architecture name without its activation: both names have the same tags, and a tag decides."""
    return name.removesuffix(QUICK_SUFFIX)


def tag_config(name: str, tag: str) -> dict[str, Any]:
    """Return what open_clip records of a tag of an architecture; empty if there is no such tag."""
    return open_clip.get_pretrained_cfg(base_name(name), tag)


def activation_of(values: Mapping[str, Any]) -> Activation:
    """Return the activation of a tag or of a model configuration of open_clip."""
    return "quick_gelu" if values.get("quick_gelu", False) else "gelu"


def preprocessing_of(values: Mapping[str, Any], size: int, source: str) -> Preprocessing:
    """Read the preprocessing from open_clip's values: of a tag, or of an ``open_clip_config.json``.

    Args:
        values: "mean", "std", "resize_mode" and "interpolation"; what is missing or None is OpenAI's, and other keys
            are ignored.
        size: side of the image tower's input, pixels.
        source: for messages.

    Raises:
        ConfigError: a value is not supported, such as the resize mode "longest".
    """
    mean, std = (_per_channel(values.get(key), default) for key, default in (("mean", CLIP_MEAN), ("std", CLIP_STD)))
    interpolation = values.get("interpolation") or "bicubic"
    # open_clip's "random" is about training; it evaluates with bicubic.
    interpolation = "bicubic" if interpolation == "random" else interpolation
    try:
        return Preprocessing(size, mean, std, values.get("resize_mode") or "shortest", interpolation)
    except ConfigError as error:
        raise ConfigError(f"{source}: its preprocessing is not supported: {error}") from error


def documented_preprocessing(name: str, size: int, activation: Activation | None = None) -> dict[Preprocessing, str]:
    """Return each preprocessing of an architecture's published weights, with a tag that has it.

    Args:
        name: the architecture.
        size: side of the image tower's input, pixels.
        activation: leaves out weights that were trained with the other one.
    """
    found: dict[Preprocessing, str] = {}
    for tag in open_clip.list_pretrained_tags_by_model(base_name(name)):
        values = tag_config(name, tag)
        if activation in (None, activation_of(values)):
            found.setdefault(preprocessing_of(values, size, f"{name}, tag {tag!r}"), tag)
    return found


def _per_channel(values: Any, default: tuple[float, ...]) -> tuple[float, ...]:
    """Return three numbers; open_clip also takes one number for all channels."""
    if values is None:
        return default
    return tuple(values) if isinstance(values, (list, tuple)) else (values,) * 3
