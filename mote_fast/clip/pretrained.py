"""Building CLIP towers from a name, a tag, or a file, with the activation and preprocessing of their weights.

The QuickGELU trap: OpenAI's weights (and some others) were trained with ``x * sigmoid(1.702 x)``; with GELU they load
without an error and give wrong features. The shapes do not show the activation, so it always follows the weights'
origin: a tag names it, OpenAI's own files are recognised, and for any other file the caller must pass it. A
contradiction raises. The preprocessing (normalisation, resize mode, interpolation) follows the same rule; for a file of
unknown origin it is the one that all published weights of the architecture share, or the caller must pass it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import timm
from open_clip.factory import _find_checkpoint_in_dir, load_checkpoint
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf
from torch import Tensor, nn

from mote_fast.clip.clip_config import TEST_NAME, ClipConfig, config_of_name, config_of_state_dict, image_size_of
from mote_fast.clip.clip_weights import fit_state_dict, in_own_layout, read_clip_state_dict
from mote_fast.clip.hub_cache import cached_weights, quiet_hub
from mote_fast.clip.published import (
    QUICK_SUFFIX,
    Activation,
    activation_of,
    base_name,
    documented_preprocessing,
    preprocessing_of,
    tag_config,
)
from mote_fast.clip.text_files import (
    check_installed,
    check_repositories,
    needs_transformers,
    text_config_of,
    tokenizer_of,
)
from mote_fast.clip.towers import ClipTowers
from mote_fast.data.transforms import Preprocessing
from mote_fast.errors import ActivationMismatchError, CheckpointError, ConfigError, MoteError, naming, one_line, quoted
from mote_fast.runtime.json_text import from_json
from mote_fast.runtime.reading import check_inside, expanded, read_small
from mote_fast.runtime.shapes import check_shapes, plan_of, shapes_of
from mote_fast.runtime.skip_init import skip_init
from mote_fast.runtime.weights import MAX_CONFIG, OPEN_CLIP_CONFIG

# A model that is not in open_clip's list: a repository of the hub, or a folder in its layout.
SCHEMAS = ("hf-hub:", "local-dir:")

# Exceptions of the hub client and urllib offline, and of open_clip for an unreadable folder.
_DOWNLOAD_ERRORS = (OSError, ValueError, RuntimeError)
# Exceptions of open_clip for sizes that do not fit together, and options of the wrong type.
_BUILD_ERRORS = (TypeError, AttributeError, AssertionError, RuntimeError, ValueError, LookupError, ArithmeticError)


def load_towers(
    name: str | None = None,
    pretrained: str | Path | None = None,
    *,
    activation: Activation | None = None,
    preprocessing: Preprocessing | str | None = None,
    attention: str = "auto",
) -> ClipTowers:
    """Build CLIP towers in float32 on the CPU.

    Args:
        name: an open_clip architecture ("ViT-B-16"), "hf-hub:..." or "local-dir:...", or "ViT-test", for tests. None
            with a file infers the architecture from its shapes.
        pretrained: an open_clip tag ("openai"), a weights file (OpenAI's .pt as archive or state dict, an open_clip
            checkpoint, safetensors), or None for random weights.
        activation: the activation that the weights were trained with; needed only for a file of unknown origin, and
            checked against a known origin.
        preprocessing: how the weights want their frames, or an open_clip tag of the architecture that has the same;
            needed only for a file of unknown origin whose architecture was published with several, and checked
            against a known origin.
        attention: attention backend, see ``mote_fast.ops.attention``.

    Raises:
        ConfigError: the architecture is unknown, or the preprocessing is unknown or contradicts the weights' origin.
        CheckpointError: the weights cannot be found, read or fitted.
        BackendError: a package that the text tower or its tokenizer needs is missing.
        ActivationMismatchError: the activation contradicts the weights' origin, or is unknown.
    """
    if name is not None and name.startswith(SCHEMAS):
        return _from_open_clip_schema(name, pretrained, activation, preprocessing, attention)
    if pretrained is None:
        if name is None:
            raise ConfigError("name an architecture, such as 'ViT-B-16', or give a weights file")
        config = config_of_name(name)
        config = config.with_activation(activation or _default_activation(name, config))
        if preprocessing is not None:
            config = replace(config, preprocessing=_asked_preprocessing(preprocessing, config))
        return build_towers(config, attention)
    if name is not None and (tag := tag_config(name, str(pretrained))):
        return _from_tag(name, str(pretrained), tag, activation, preprocessing, attention)
    path = expanded(pretrained)
    if not path.is_file():
        tags = open_clip.list_pretrained_tags_by_model(base_name(name)) if name else []
        raise CheckpointError(f"{pretrained}: neither a file nor a tag of {name}; tags: {', '.join(tags) or 'none'}")
    return _from_file(name, path, activation, preprocessing, attention)


def fetch_tag(name: str, tag: str) -> Path:
    """Return the file of an open_clip tag, fetched by open_clip if it is not on this machine.

    Raises:
        CheckpointError: there is no such tag, or its file cannot be fetched; the message says what to do.
    """
    values = tag_config(name, tag)
    try:
        found = cached_weights(values)
        if found is None:
            with quiet_hub(values):
                found = download_pretrained(values)
    except _DOWNLOAD_ERRORS as error:
        address = values.get("url") or values.get("hf_hub")
        raise CheckpointError(
            f"{name}, tag {tag!r}: the weights could not be downloaded ({one_line(error)}); try again, or fetch "
            f"{address} on another machine and pass the path of the file in place of the tag"
        ) from error
    return Path(found)


def build_towers(
    config: ClipConfig,
    attention: str = "auto",
    text_files: Path | None = None,
    check: Callable[[nn.Module], object] | None = None,
) -> ClipTowers:
    """Build the towers of a configuration, float32, on the CPU, in evaluation mode.

    Their weights are random; within ``skip_init`` they are zeros.

    Args:
        config: the configuration.
        attention: attention backend, see ``mote_fast.ops.attention``.
        text_files: folder of the files of a text tower or tokenizer of transformers, see ``mote_fast.clip.text_files``;
            None opens the repositories that the configuration names.
        check: called with the model on the meta device, before it takes memory; for sizes of strangers, see
            ``mote_fast.runtime.shapes``.

    Raises:
        ConfigError: open_clip cannot build the configuration.
        BackendError: a package that the text tower or its tokenizer needs is missing.
        CheckpointError: files of the text tower or its tokenizer are missing or unreadable.
    """
    # First, because a missing package should not cost the time and memory of building.
    tokenizer = tokenizer_of(config, text_files)
    kind: Any = open_clip.CLIP
    options = dict(config.model)
    if options.pop("custom_text", False) or options["text_cfg"].get("hf_model_name"):
        kind = open_clip.CoCa if "multimodal_cfg" in options else open_clip.CustomTextCLIP
    options["vision_cfg"] = _vision_config(config)
    with text_config_of(config, text_files) as options["text_cfg"]:
        try:
            plan = None if check is None else plan_of(lambda: kind(**options))
            if check is not None and plan is not None:
                check(plan)
            model = kind(**options)
        except MoteError:
            raise
        except _BUILD_ERRORS as error:
            raise ConfigError(f"open_clip cannot build this CLIP configuration: {one_line(error)}") from error
    return ClipTowers(model, config, tokenizer, attention).eval()


def _vision_config(config: ClipConfig) -> dict[str, Any]:
    """Return the image tower's configuration, which opens no other place and downloads nothing.

    Raises:
        ConfigError: its timm architecture is not one of timm's own.
    """
    vision = dict(config.model["vision_cfg"])
    name = vision.get("timm_model_name")
    if name:
        # timm would take the names of repositories and folders too.
        if not isinstance(name, str) or not timm.is_model(name):
            raise ConfigError(f"timm {timm.__version__} has no model {quoted(name)}, the image tower of {config.name}")
        vision["timm_model_pretrained"] = False
    return vision


def _from_file(
    name: str | None,
    path: Path,
    activation: Activation | None,
    preprocessing: Preprocessing | str | None,
    attention: str,
) -> ClipTowers:
    state, from_openai = read_clip_state_dict(path)
    if from_openai:
        activation = _agree(activation or _named_activation(name), "quick_gelu", f"{path} (OpenAI's weights)")
    activation = activation or _named_activation(name)
    if activation is None:
        raise ActivationMismatchError(
            f"{path}: nothing in the file tells which activation it was trained with; pass activation='quick_gelu' "
            "(OpenAI, DFN, MetaCLIP) or activation='gelu' (LAION and most others)"
        )
    with naming(path):
        config = config_of_name(name) if name is not None else config_of_state_dict(state)
    config = config.with_activation(activation)
    if from_openai:
        known = Preprocessing(config.preprocessing.size)
        config = _with_known_preprocessing(config, preprocessing, known, f"{path} (OpenAI's weights)")
    else:
        config = replace(config, preprocessing=_preprocessing_of_file(config, preprocessing, path))
    return _built_and_fitted(config, attention, None, state, path)


def _from_tag(
    name: str,
    tag: str,
    values: dict[str, Any],
    activation: Activation | None,
    preprocessing: Preprocessing | str | None,
    attention: str,
) -> ClipTowers:
    trained, source = activation_of(values), f"{name}, tag {tag!r}"
    _agree(activation or _named_activation(name), trained, source)
    config = config_of_name(base_name(name)).with_activation(trained)
    known = preprocessing_of(values, config.preprocessing.size, source)
    config = _with_known_preprocessing(config, preprocessing, known, source)
    # A missing package should not cost the time of fetching.
    check_installed(config)
    path = fetch_tag(name, tag)
    if path.suffix in (".npz", ".npy"):
        towers = build_towers(config, attention)
        # Weights of big_vision, which only names of open_clip's own list lead to.
        load_checkpoint(towers.model, path)  # pyright: ignore[reportArgumentType]
        return towers
    state, _ = read_clip_state_dict(path)
    return _built_and_fitted(config, attention, None, state, path)


def _from_open_clip_schema(
    name: str,
    pretrained: str | Path | None,
    activation: Activation | None,
    preprocessing: Preprocessing | str | None,
    attention: str,
) -> ClipTowers:
    if pretrained is not None:
        raise ConfigError(f"{name} brings its own weights; leave out pretrained={str(pretrained)!r}")
    schema, _, place = name.partition(":")
    local = expanded(place) if schema == "local-dir" else None
    try:
        if local is not None:
            config_file, weights = local / OPEN_CLIP_CONFIG, _find_checkpoint_in_dir(local)
        else:
            config_file = download_pretrained_from_hf(place, OPEN_CLIP_CONFIG)
            weights = download_pretrained_from_hf(place)
        if local is not None:
            check_inside(local / OPEN_CLIP_CONFIG, local)
            check_inside(Path(weights or local), local)
        values = from_json(read_small(config_file, MAX_CONFIG).decode("utf-8"))
        model = values["model_cfg"]
        with naming(name):
            known = preprocessing_of(values.get("preprocess_cfg") or {}, image_size_of(model), name)
            # The path of a folder is this machine's own, and models are passed on.
            config = ClipConfig(model, known, name if local is None else f"{schema}:{local.name}")
    except ConfigError:
        raise
    except (*_DOWNLOAD_ERRORS, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{name}: could not be loaded ({one_line(error)})") from error
    if weights is None:
        raise CheckpointError(f"{name}: holds no weights")
    _agree(activation, config.activation, name)
    config = _with_known_preprocessing(config, preprocessing, known, name)
    if local is None:
        check_repositories(config, place)
    state, _ = read_clip_state_dict(weights)
    return _built_and_fitted(config, attention, local if needs_transformers(config) else None, state, weights)


def _built_and_fitted(
    config: ClipConfig, attention: str, text_files: Path | None, state: dict[str, Tensor], source: str | Path
) -> ClipTowers:
    """Build the towers around weights, whose shapes are compared with the configuration first."""

    def check(plan: nn.Module) -> None:
        check_shapes(plan, shapes_of(in_own_layout(plan, state)), source)

    with naming(source), skip_init():
        towers = build_towers(config, attention, text_files, check)
    fit_state_dict(towers.model, in_own_layout(towers.model, state), source)
    return towers


def _with_known_preprocessing(
    config: ClipConfig, asked: Preprocessing | str | None, known: Preprocessing, source: str
) -> ClipConfig:
    """Return ``config`` with the preprocessing of weights of known origin; a contradiction raises."""
    if asked is not None and _asked_preprocessing(asked, config) != known:
        raise ConfigError(f"preprocessing contradicts {source}: these weights take {known}; leave it out")
    return replace(config, preprocessing=known)


def _preprocessing_of_file(config: ClipConfig, asked: Preprocessing | str | None, path: Path) -> Preprocessing:
    """Return the preprocessing of weights of unknown origin."""
    if asked is not None:
        return _asked_preprocessing(asked, config)
    if config.name is None:
        return config.preprocessing
    size = config.preprocessing.size
    documented = documented_preprocessing(config.name, size, config.activation)
    # Weights with an activation that was never published may still have the others' preprocessing, but not OpenAI's.
    documented = documented or documented_preprocessing(config.name, size)
    if len(documented) > 1:
        choices = "; ".join(f"{tag!r} has {found}" for found, tag in documented.items())
        raise ConfigError(
            f"{path}: the published weights of {config.name} differ in preprocessing, and nothing in the file tells "
            f"which these take; pass preprocessing=, a tag or the values: {choices}"
        )
    return next(iter(documented), config.preprocessing)


def _asked_preprocessing(asked: Preprocessing | str, config: ClipConfig) -> Preprocessing:
    """Return the preprocessing that the caller passed, itself or by a tag of the architecture."""
    if isinstance(asked, Preprocessing):
        return asked
    values = tag_config(config.name or "", asked)
    if not values:
        tags = open_clip.list_pretrained_tags_by_model(base_name(config.name or ""))
        raise ConfigError(f"preprocessing: {asked!r} is no tag of {config.name}; tags: {', '.join(tags) or 'none'}")
    return preprocessing_of(values, config.preprocessing.size, f"{config.name}, tag {asked!r}")


def _default_activation(name: str, config: ClipConfig) -> Activation:
    """The activation for random weights, as in MoTE: OpenAI's for CLIP's towers, else the architecture's."""
    openai = name == TEST_NAME or bool(open_clip.get_pretrained_cfg(name, "openai").get("quick_gelu", False))
    return "quick_gelu" if openai else config.activation


def _named_activation(name: str | None) -> Activation | None:
    return "quick_gelu" if name is not None and name.endswith(QUICK_SUFFIX) else None


def _agree(asked: Activation | None, trained: Activation, source: str) -> Activation:
    if asked is not None and asked != trained:
        raise ActivationMismatchError(
            f"{source}: these weights were trained with {trained}, but {asked} was asked for; the features would be "
            f"wrong without any sign of it. Use activation={trained!r}, or leave it out"
        )
    return trained
