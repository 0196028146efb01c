"""CLIP configurations in open_clip's schema, from a name, a preset, or a state dict's shapes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import open_clip
from torch import Tensor

from mote_fast.clip.published import Activation, documented_preprocessing
from mote_fast.data.transforms import Preprocessing
from mote_fast.errors import CheckpointError, ConfigError, quoted
from mote_fast.runtime.checks import check_count
from mote_fast.runtime.shapes import MAX_LAYERS

# CLIP's width of one attention head, in both towers.
HEAD_WIDTH = 64

# The name of the smallest architecture, which open_clip does not know.
TEST_NAME = "ViT-test"

# Side of an image tower's input, pixels: frames then have as many pixels as decoding allows.
MAX_IMAGE_SIZE = 2**13

# The parts of open_clip's model configuration that describe towers.
_TOWERS = ("vision_cfg", "text_cfg", "multimodal_cfg")

# Small enough to build and run in a second; apart from its size a real tower.
TEST_MODEL: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@dataclass(frozen=True)
class ClipConfig:
    """Everything needed to rebuild a CLIP model around its weights.

    Attributes:
        model: open_clip's model configuration (``embed_dim``, ``vision_cfg``, ``text_cfg``, ``quick_gelu``, ...).
        preprocessing: how the image tower wants its frames; its size is that of ``model``.
        name: where the configuration is from: open_clip's architecture name, "hf-hub:..." or "local-dir:...", if any.
            Only messages use it: everything else follows from the other fields.
        merges: byte-pair merges of a small text tower's tokenizer, see ``mote_fast.clip.tokens``; None takes CLIP's.

    Raises:
        ConfigError: a tower is missing, the image tower's input is not square, ``preprocessing`` has another size, or
            a number of layers is out of range.
    """

    model: dict[str, Any] = field(hash=False)
    preprocessing: Preprocessing
    name: str | None = None
    merges: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(self.model.get(part, {}), Mapping) for part in _TOWERS) or not {*_TOWERS[:2]} <= {
            *self.model
        }:
            raise ConfigError("a CLIP model needs vision_cfg and text_cfg")
        if not isinstance(self.name, str | None):
            raise ConfigError(f"name must be a text, got {quoted(self.name)}")
        size = image_size_of(self.model)
        check_count("embed_dim", self.model.get("embed_dim"), 1)
        for key, value in (item for part in _TOWERS for item in self.model.get(part, {}).items()):
            if "layers" in key:
                # A ResNet has several stages.
                stages = value if isinstance(value, list) else [value]
                for stage in stages:
                    check_count(key, stage, 0, MAX_LAYERS)
                check_count(key, sum(stages), 0, MAX_LAYERS)
        if self.preprocessing.size != size:
            raise ConfigError(f"preprocessing.size is {self.preprocessing.size}, but the image tower takes {size}")

    @classmethod
    def of_clip(
        cls, model: dict[str, Any], name: str | None = None, *, merges: tuple[str, ...] | None = None
    ) -> ClipConfig:
        """Return the configuration of ``model`` with OpenAI's preprocessing at its image size."""
        return cls(model, Preprocessing(image_size_of(model)), name, merges)

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Normalisation of the frames, per channel."""
        return self.preprocessing.mean

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Normalisation of the frames, per channel."""
        return self.preprocessing.std

    @property
    def embed_dim(self) -> int:
        """d, the width of frame and class features."""
        return self.model["embed_dim"]

    @property
    def activation(self) -> Activation:
        """The activation of the towers' MLPs."""
        return "quick_gelu" if self.model.get("quick_gelu", False) else "gelu"

    @property
    def text_heads(self) -> int:
        """Attention heads of the text tower at CLIP's 64 per head; MoTE's temporal heads (eq. (4)).

        Raises:
            ConfigError: the configuration does not tell the text width, or its heads do not divide ``embed_dim``.
        """
        text = self.model["text_cfg"]
        if "hf_model_name" in text and "width" not in text:
            why = f"open_clip's configuration does not tell the width of its text tower, {text['hf_model_name']}"
        else:
            # open_clip's default width.
            width = text.get("width", 512)
            heads = max(1, width // HEAD_WIDTH)
            if self.embed_dim % heads == 0:
                return heads
            why = f"its width of {width} gives {heads}, which does not divide the width of features, {self.embed_dim}"
        raise ConfigError(
            f"heads cannot follow from the text tower of {self.name}: {why}; pass heads=, such as heads="
            f"{max(1, self.embed_dim // HEAD_WIDTH)}"
        )

    def with_activation(self, activation: Activation) -> ClipConfig:
        """Return the same configuration with the given MLP activation."""
        return replace(self, model={**self.model, "quick_gelu": activation == "quick_gelu"})


def image_size_of(model: Mapping[str, Any]) -> int:
    """Return the side of the image tower's input, pixels, from open_clip's model configuration.

    Raises:
        ConfigError: the input is not a square, or has no side of 1 to ``MAX_IMAGE_SIZE`` pixels.
    """
    # open_clip's default is 224.
    size = model["vision_cfg"].get("image_size", 224)
    sides = list(size) if isinstance(size, list | tuple) else [size]
    if not 1 <= len(sides) <= 2 or any(side != sides[0] for side in sides):
        raise ConfigError(f"image_size is {quoted(size)}, but frames are encoded as squares")
    check_count("image_size", sides[0], 1, MAX_IMAGE_SIZE)
    return sides[0]


def is_architecture(name: str) -> bool:
    """Whether ``config_of_name`` knows an architecture of this name."""
    return name == TEST_NAME or name in open_clip.list_models()


def config_of_name(name: str) -> ClipConfig:
    """Return the configuration of an open_clip architecture, or of "ViT-test", the smallest one, for tests.

    Its preprocessing is the one that all of the architecture's published weights share; OpenAI's if they differ, or
    there are none.

    Raises:
        ConfigError: open_clip knows no such architecture.
    """
    if name == TEST_NAME:
        return ClipConfig.of_clip(deepcopy(TEST_MODEL))
    model = None if name.startswith(("hf-hub:", "local-dir:")) else open_clip.get_model_config(name)
    if model is None:
        known = {each.lower(): each for each in open_clip.list_models()}
        close = difflib.get_close_matches(name.lower().replace("/", "-"), known, 1, cutoff=0.8)
        meant = f"did you mean {known[close[0]]!r}? " if close else ""
        raise ConfigError(
            f"unknown architecture {quoted(name)}; {meant}open_clip.list_models() names them, and {TEST_NAME!r} is one "
            "for tests. "
            "Trained models, such as 'tiny', are loaded: mote_fast.load, --checkpoint, model.checkpoint"
        )
    plain = ClipConfig.of_clip(model, name)
    documented = documented_preprocessing(name, plain.preprocessing.size)
    return replace(plain, preprocessing=next(iter(documented))) if len(documented) == 1 else plain


def config_of_state_dict(state_dict: Mapping[str, Tensor]) -> ClipConfig:
    """Read a CLIP configuration from the shapes of a state dict in OpenAI's key layout.

    The shapes do not show the activation: the caller sets it from the weights' origin.

    Raises:
        CheckpointError: the keys are not those of an OpenAI CLIP.
    """
    vision = vision_config_of_state_dict(state_dict)
    try:
        embed_dim = state_dict["text_projection"].shape[1]
        width = state_dict["ln_final.weight"].shape[0]
        text = {
            "context_length": state_dict["positional_embedding"].shape[0],
            "vocab_size": state_dict["token_embedding.weight"].shape[0],
            "width": width,
            "heads": max(1, width // HEAD_WIDTH),
            "layers": count_layers(state_dict, "transformer.resblocks."),
        }
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"these weights have no text tower in OpenAI's layout: {error} is missing") from error
    model = {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text}
    return ClipConfig.of_clip(model, name_of_shapes(vision, text))


def vision_config_of_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the image tower's configuration, a ViT's or a ResNet's, from a state dict with keys "visual.*"."""
    try:
        if "visual.proj" not in state_dict:
            stages = [count_layers(state_dict, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
            width = state_dict["visual.layer1.0.conv1.weight"].shape[0]
            # The ResNet's five strides of 2 make each position 32 pixels wide.
            grid = _grid(state_dict["visual.attnpool.positional_embedding"])
            return {"image_size": grid * 32, "layers": stages, "width": width, "patch_size": None}
        width, _, _, patch = state_dict["visual.conv1.weight"].shape
        grid = _grid(state_dict["visual.positional_embedding"])
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"these weights have no image tower in OpenAI's layout: {error} is missing") from error
    layers = count_layers(state_dict, "visual.transformer.resblocks.")
    return {"image_size": grid * patch, "layers": layers, "width": width, "patch_size": patch}


def _grid(positions: Tensor) -> int:
    """Return the side of the square grid of a position table that has one row for the class token."""
    patches = positions.shape[0] - 1
    side = round(patches**0.5)
    if side * side != patches:
        raise CheckpointError(f"the image tower has {patches} positions, which is no square grid")
    return side


def count_layers(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    """Count the distinct layer numbers that follow ``prefix`` in the keys."""
    depth = prefix.count(".")
    return len({key.split(".")[depth] for key in state_dict if key.startswith(prefix)})


def name_of_shapes(vision: Mapping[str, Any], text: Mapping[str, Any] | None = None) -> str | None:
    """Return the open_clip name of OpenAI's CLIP with these tower shapes, else None (a custom tower).

    Args:
        vision: the image tower's configuration.
        text: the text tower's; None leaves it out of the comparison.
    """
    for name in ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "RN50", "RN101"):
        known = open_clip.get_model_config(name)
        if known is not None and known["vision_cfg"] == vision and text in (None, known["text_cfg"]):
            return name
    return None
