"""Building CLIP towers from a name, a tag, or a file, with the activation that their weights were trained with.

The QuickGELU trap: OpenAI's weights (and some others) were trained with ``x * sigmoid(1.702 x)``; with GELU they load
without an error and give wrong features. The shapes do not show the activation, so it always follows the weights'
origin: a tag names it, OpenAI's own files are recognised, and for any other file the caller must pass it. A
contradiction raises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_checkpoint
from open_clip.pretrained import download_pretrained
from torch import Tensor, nn

from mote_fast.clip.clip_config import Activation, ClipConfig, config_of_name, config_of_state_dict
from mote_fast.clip.tokens import small_tokenizer
from mote_fast.clip.towers import ClipTowers, Tokenizer
from mote_fast.errors import ActivationMismatchError, CheckpointError, ConfigError
from mote_fast.runtime.weights import plain_state_dict, read_weights

# Names in OpenAI's published archives, and in state dicts taken from them, beside the weights.
_OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")
_QUICK_SUFFIX = "-quickgelu"

# Exceptions of the hub client and urllib offline, and of open_clip for an unreadable folder.
_DOWNLOAD_ERRORS = (OSError, ValueError, RuntimeError)


def load_towers(
    name: str | None = None,
    pretrained: str | Path | None = None,
    *,
    activation: Activation | None = None,
    attention: str = "auto",
) -> ClipTowers:
    """Build CLIP towers in float32 on the CPU.

    Args:
        name: an open_clip architecture ("ViT-B-16"), "hf-hub:..." or "local-dir:...", or the preset "tiny". None
            with a file infers the architecture from its shapes.
        pretrained: an open_clip tag ("openai"), a weights file (OpenAI's .pt as archive or state dict, an open_clip
            checkpoint, safetensors), or None for random weights.
        activation: the activation that the weights were trained with; needed only for a file of unknown origin, and
            checked against a known origin.
        attention: attention backend, see ``mote_fast.ops.attention``.

    Raises:
        ConfigError: the architecture is unknown.
        CheckpointError: the weights cannot be found, read or fitted.
        ActivationMismatchError: the activation contradicts the weights' origin, or is unknown.
    """
    if name is not None and name.startswith(("hf-hub:", "local-dir:")):
        return _from_open_clip_schema(name, pretrained, activation, attention)
    if pretrained is None:
        if name is None:
            raise ConfigError("name an architecture, such as 'ViT-B-16', or give a weights file")
        config = config_of_name(name)
        return build_towers(config.with_activation(activation or _default_activation(name, config)), attention)
    if name is not None and (tag := open_clip.get_pretrained_cfg(_base_name(name), str(pretrained))):
        return _from_tag(name, str(pretrained), tag, activation, attention)
    path = Path(pretrained)
    if not path.is_file():
        tags = open_clip.list_pretrained_tags_by_model(_base_name(name)) if name else []
        raise CheckpointError(f"{pretrained}: neither a file nor a tag of {name}; tags: {', '.join(tags) or 'none'}")
    return _from_file(name, path, activation, attention)


def build_towers(config: ClipConfig, attention: str = "auto") -> ClipTowers:
    """Build the towers of a configuration with random weights, float32, on the CPU, in evaluation mode.

    Raises:
        ConfigError: open_clip cannot build the configuration.
    """
    kind: Any = open_clip.CLIP
    options = dict(config.model)
    if options.pop("custom_text", False) or "hf_model_name" in options["text_cfg"]:
        kind = open_clip.CoCa if "multimodal_cfg" in options else open_clip.CustomTextCLIP
    try:
        model = kind(**options)
    except (TypeError, AttributeError, AssertionError) as error:
        raise ConfigError(f"open_clip cannot build this CLIP configuration: {error}") from error
    return ClipTowers(model, config, tokenizer_of(config), attention).eval()


def tokenizer_of(config: ClipConfig) -> Tokenizer:
    """Return a configuration's tokenizer: open_clip's for a named architecture, else CLIP's or a part of it."""
    if config.name is not None:
        return open_clip.get_tokenizer(config.name)
    text = config.model["text_cfg"]
    context_length = text.get("context_length", 77)
    if config.merges is not None:
        tokenizer = small_tokenizer(config.merges, context_length)
    else:
        tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
    if text.get("vocab_size", tokenizer.vocab_size) < tokenizer.vocab_size:
        raise ConfigError(
            f"the text tower knows {text['vocab_size']} tokens, its tokenizer makes {tokenizer.vocab_size}; "
            "such a tower needs a tokenizer of its own"
        )
    return tokenizer


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
        CheckpointError: a name or shape does not fit.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{source}: does not fit the model: {' '.join(str(error).split())[:400]}") from error


def _from_file(name: str | None, path: Path, activation: Activation | None, attention: str) -> ClipTowers:
    state, from_openai = read_clip_state_dict(path)
    if from_openai:
        activation = _agree(activation or _named_activation(name), "quick_gelu", f"{path} (OpenAI's weights)")
    activation = activation or _named_activation(name)
    if activation is None:
        raise ActivationMismatchError(
            f"{path}: nothing in the file tells which activation it was trained with; pass activation='quick_gelu' "
            "(OpenAI, DFN, MetaCLIP) or activation='gelu' (LAION and most others)"
        )
    config = config_of_name(name) if name is not None else config_of_state_dict(state)
    towers = build_towers(config.with_activation(activation), attention)
    fit_state_dict(towers.model, state, path)
    return towers


def _from_tag(
    name: str, tag: str, tag_config: dict[str, Any], activation: Activation | None, attention: str
) -> ClipTowers:
    trained: Activation = "quick_gelu" if tag_config.get("quick_gelu", False) else "gelu"
    _agree(activation or _named_activation(name), trained, f"{name}, tag {tag!r}")
    config = config_of_name(_base_name(name)).with_activation(trained)
    mean, std = tuple(tag_config.get("mean", config.mean)), tuple(tag_config.get("std", config.std))
    towers = build_towers(ClipConfig(config.model, config.name, mean, std), attention)
    try:
        path = download_pretrained(tag_config)
    except _DOWNLOAD_ERRORS as error:
        raise CheckpointError(f"{name}, tag {tag!r}: the weights could not be downloaded ({error})") from error
    if Path(path).suffix == ".pt":
        state, _ = read_clip_state_dict(path)
        fit_state_dict(towers.model, state, path)
    else:
        # open_clip converts the layouts of other projects while loading.
        load_checkpoint(towers.model, path, weights_only=True)
    return towers


def _from_open_clip_schema(
    name: str, pretrained: str | Path | None, activation: Activation | None, attention: str
) -> ClipTowers:
    if pretrained is not None:
        raise ConfigError(f"{name} brings its own weights; leave out pretrained={str(pretrained)!r}")
    try:
        model_config = open_clip.get_model_config(name)
        model = open_clip.create_model(name)
    except _DOWNLOAD_ERRORS as error:
        raise CheckpointError(f"{name}: could not be loaded ({error})") from error
    if model_config is None:
        raise ConfigError(f"{name}: open_clip found no model configuration there")
    preprocess = open_clip.get_model_preprocess_cfg(model)
    config = ClipConfig(model_config, name, tuple(preprocess["mean"]), tuple(preprocess["std"]))
    _agree(activation, config.activation, name)
    return ClipTowers(model, config, open_clip.get_tokenizer(name), attention).eval()


def _default_activation(name: str, config: ClipConfig) -> Activation:
    """The activation for random weights, as in MoTE: OpenAI's for CLIP's towers, else the architecture's."""
    openai = name == "tiny" or bool(open_clip.get_pretrained_cfg(name, "openai").get("quick_gelu", False))
    return "quick_gelu" if openai else config.activation


def _named_activation(name: str | None) -> Activation | None:
    return "quick_gelu" if name is not None and name.endswith(_QUICK_SUFFIX) else None


def _base_name(name: str) -> str:
    """Return the architecture name without its activation: both names have the same tags, and a tag decides."""
    return name.removesuffix(_QUICK_SUFFIX)


def _agree(asked: Activation | None, trained: Activation, source: str) -> Activation:
    if asked is not None and asked != trained:
        raise ActivationMismatchError(
            f"{source}: these weights were trained with {trained}, but {asked} was asked for; the features would be "
            f"wrong without any sign of it. Use activation={trained!r}, or leave it out"
        )
    return trained


def _as_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() and value.dtype != torch.float32 else value
