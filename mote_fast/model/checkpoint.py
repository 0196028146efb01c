"""Making and loading models: presets, the released checkpoints, and our own folders."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from mote_fast.clip.clip_config import config_of_name
from mote_fast.clip.clip_weights import fit_state_dict
from mote_fast.clip.int8 import BACKENDS
from mote_fast.clip.pretrained import SCHEMAS, build_towers, load_towers
from mote_fast.clip.published import Activation, base_name
from mote_fast.clip.text_files import check_installed, needs_transformers
from mote_fast.clip.towers import ClipTowers
from mote_fast.data.transforms import Preprocessing
from mote_fast.errors import CheckpointError, ConfigError, naming, one_line
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import VideoHead
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.devices import resolve_device
from mote_fast.model.dtypes import Dtype, resolve_dtype
from mote_fast.model.model_config import ModelConfig, default_layers
from mote_fast.model.model_defaults import CLIP_SCHEMA, DEFAULT_EXPERTS, DEFAULT_FRAMES, DEFAULT_INTERPOLATION
from mote_fast.model.original import check_share, interpolate_tower, load_original, record_original
from mote_fast.model.other_files import refuse_other_content
from mote_fast.model.released import head_from_released, head_to_released
from mote_fast.model.released_clip import check_released, interpolate_visual, original_clip, record_released
from mote_fast.model.zoo import find_weights, is_drawn_only
from mote_fast.runtime.compiling import Compile, check_compile
from mote_fast.runtime.reading import expanded
from mote_fast.runtime.shapes import check_shapes, plan_of
from mote_fast.runtime.skip_init import skip_init
from mote_fast.runtime.weights import (
    TEXT_FOLDER,
    check_numbers,
    read_model_config,
    read_model_shapes,
    read_model_weights,
    read_weights,
    state_dict_of,
)

log = logging.getLogger(__name__)

# The name of the features of the fine-tuning label set in a head, whose number no configuration states.
_TRAIN_CLASSES = "train_class_features"

Value = TypeVar("Value")

# The parts of a released checkpoint.
_CLIP_KEY = "model_state_dict"
_HEAD_KEY = "fusion_model_state_dict"


def create_model(
    name: str,
    *,
    experts: int = DEFAULT_EXPERTS,
    layers: int | None = None,
    heads: int | None = None,
    frames: int = DEFAULT_FRAMES,
    clip_pretrained: str | Path | None = None,
    activation: Activation | None = None,
    preprocessing: Preprocessing | str | None = None,
    device: str | torch.device = "cpu",
    dtype: Dtype = torch.float32,
    compile: Compile = "auto",
    **head_options: Any,
) -> VideoClassifier:
    """Build a classifier with a fresh head.

    Args:
        name: "ViT-B-16", "ViT-L-14", "ViT-test" (small, for tests), or any architecture that open_clip knows;
            "hf-hub:..." or "local-dir:..." for a repository or a folder in open_clip's layout.
        experts: E, temporal experts per layer.
        layers: temporal layers; None takes the preset's (4 for ViT-B-16, 6 for ViT-L-14).
        heads: attention heads of a temporal layer; None takes the width of the text tower / 64, the paper's, and fails
            where that is unknown or does not divide d.
        frames: T, frames per view.
        clip_pretrained: an open_clip tag ("openai") or a weights file; None gives random towers.
        activation: only for a weights file of unknown origin, see ``mote_fast.clip.pretrained``.
        preprocessing: only for a weights file of unknown origin, of an architecture that was published with several:
            its ``Preprocessing``, or a tag that has the same.
        device: device of the model; "auto" takes a GPU if there is one.
        dtype: type of its parameters, also by name ("float16"); or "auto", float32 or bfloat16, whichever a measurement
            finds faster on the device; or "int8", for inference on the CPU with the image tower quantised, see
            ``mote_fast.clip.int8``; or "int8-openvino", the same in OpenVINO.
        compile: run the image tower through torch.compile: True at the first call; False never, unless ``compile()`` is
            called; "auto" on a GPU, once ``stream_results``, ``stream_embeddings``, an evaluation or the like has
            encoded many frames (``mote_fast.clip.tower_compiler``), or as a server starts, and one video never waits
            for the compiler. Where that is missing or fails, "auto" goes on without it after one warning.
        head_options: ``header``, ``expert_init``, ``expert_design``, ``aggregation``, ``modulation``,
            ``modulation_top_k`` and ``modulation_gamma``, see ``HeadOptions``; the defaults are the paper's.

    Raises:
        ConfigError: an argument is out of range or missing, or the architecture is unknown or has no int8 path.
        BackendError: a package that int8 or the text tower needs is missing.
        CheckpointError: the CLIP weights cannot be found, read or fitted.
        ActivationMismatchError: see ``mote_fast.clip.pretrained``.
    """
    check_compile(compile)
    if not name.startswith(SCHEMAS):
        # Before the towers are built, which may take minutes and tens of gigabytes.
        known = config_of_name(base_name(name))
        check_installed(known)
        heads = known.text_heads if heads is None else heads
    towers = load_towers(name, clip_pretrained, activation=activation, preprocessing=preprocessing)
    random = clip_pretrained is None and not name.startswith(SCHEMAS)
    original = None if random else record_original(towers, name, clip_pretrained)
    if random:
        log.info("%s: CLIP towers are random; pass clip_pretrained='openai' or a file for trained ones", name)
    depth = default_layers(name) if layers is None else layers
    config = HeadConfig(
        towers.embed_dim, towers.config.text_heads if heads is None else heads, depth, experts, **head_options
    )
    model = _finish(towers, VideoHead(config), frames, device, dtype, compile)
    model.original = original
    return model


def load(
    path: str | Path,
    *,
    clip: str | Path | None = None,
    interpolate: float | None = None,
    frames: int = DEFAULT_FRAMES,
    activation: Activation | None = None,
    device: str | torch.device = "cpu",
    dtype: Dtype = torch.float32,
    compile: Compile = "auto",
) -> VideoClassifier:
    """Load a classifier by its name, from a released .pt file, or from a folder that ``save`` wrote.

    A released file holds the fine-tuned image tower and the head. The original CLIP is needed too: it gives the text
    tower, and the image tower is interpolated with it (eq. (21)). A folder is complete, and its image tower is
    interpolated on request alone: it records which CLIP that needs, and nothing outside it is opened unless
    ``interpolate`` or ``clip`` is given.

    Args:
        path: the file or folder; or, if nothing has that path, a name of ``mote_fast.list_models()``, whose file is
            fetched the first time (``mote_fast.download``); or "clip:ARCHITECTURE/TAG", such as
            "clip:ViT-B-16/openai": CLIP with mean pooling over frames, without a temporal head; or a folder of the
            Hugging Face hub, "hf-hub:ORGANIZATION/NAME" with or without "@REVISION", see ``mote_fast.model.hub``.
        clip: the original CLIP of a released file: OpenAI's .pt, an open_clip tag, or None for the tag "openai" of
            the architecture that follows from the file's shapes. For a folder, the CLIP that it was tuned from, to
            interpolate with; None takes the recorded tag.
        interpolate: share of the fine-tuned image tower, in [0, 1]; the rest is the original's. 1 keeps the tuned
            tower. None takes 0.99 for a released file. For a folder it takes, with ``clip``, the share that its
            training's ``model.interpolate`` asked for, and otherwise keeps the tuned tower, with a warning if another
            share was asked for.
        frames: T, frames per view, which a released file does not record (8, or 16 for the 16-frame models).
        activation: activation of the file ``clip``, if its origin is unknown; released files are QuickGELU by origin,
            so "gelu" raises.
        device: device of the model, or "auto".
        dtype: type of its parameters, "auto", "int8" or "int8-openvino", see ``create_model``.
        compile: whether the image tower runs through torch.compile, see ``create_model``.

    Raises:
        CheckpointError: a file is missing, damaged, unsafe or does not fit; or ``clip`` is not the CLIP that a folder
            was tuned from.
        ConfigError: an argument is out of range or does not apply.
        BackendError: a package that int8 needs is missing.
        ActivationMismatchError: ``clip`` was not trained with QuickGELU.
    """
    check_compile(compile)
    if interpolate is not None:
        check_share("interpolate", interpolate)
    if str(path).startswith(CLIP_SCHEMA):
        if clip is not None or interpolate is not None:
            raise ConfigError(f"{path} is a CLIP itself; leave out clip and interpolate")
        return _mean_clip(str(path), frames, activation, device, dtype, compile)
    path, clip = find_weights(path), _expanded_file(clip)
    if path.is_dir():
        model = _load_folder(path, clip, interpolate, device, dtype, compile)
        model.drawn_only = is_drawn_only(path)
        return model
    content = read_weights(path)
    refuse_other_content(content, path)
    visual = state_dict_of(content, _CLIP_KEY, path)
    head_state = state_dict_of(content, _HEAD_KEY, path)
    check_numbers(head_state, path)
    head_state = {name: value.float() for name, value in head_state.items()}
    towers = original_clip(path, visual, clip, activation)
    share = DEFAULT_INTERPOLATION if interpolate is None else interpolate
    # An interpolated tower is not interpolated again.
    original = record_released(towers, clip) if share == 1.0 else None
    interpolate_visual(towers, visual, share, path)
    with naming(path):
        head = head_from_released(head_state, towers.config.text_heads)
    if head.embed_dim != towers.embed_dim:
        raise CheckpointError(f"{path}: its head has width {head.embed_dim}, but {clip} gives {towers.embed_dim}")
    model = _finish(towers, head, frames, device, dtype, compile)
    model.original, model.tuned_share = original, share
    return model


def released_checkpoint(model: VideoClassifier) -> dict[str, object]:
    """Return the content of a released .pt file, for ``torch.save``; the official code can load it.

    It has no text tower, as in the official code; keep the original CLIP beside the file.

    Raises:
        CheckpointError: the layout cannot express the model: its number of heads, its preprocessing or its experts.
    """
    check_released(model.clip, model.head)
    state = model.clip.model.state_dict()
    return {
        "epoch": 0,
        _CLIP_KEY: {k: v.clone() for k, v in state.items() if k.startswith("visual.") or k == "logit_scale"},
        _HEAD_KEY: head_to_released(model.head),
        "optimizer_state_dict": {},
    }


def _mean_clip(
    name: str, frames: int, activation: Activation | None, device: str | torch.device, dtype: Dtype, compile: Compile
) -> VideoClassifier:
    """Build "clip:ARCHITECTURE/TAG"."""
    architecture, _, tag = name.removeprefix(CLIP_SCHEMA).partition("/")
    if not architecture or not tag:
        raise ConfigError(f"{name}: write {CLIP_SCHEMA}ARCHITECTURE/TAG, such as {CLIP_SCHEMA}ViT-B-16/openai")
    # Mean pooling has no attention heads.
    return create_model(
        architecture,
        heads=1,
        frames=frames,
        clip_pretrained=tag,
        activation=activation,
        device=device,
        dtype=dtype,
        compile=compile,
        header="mean",
    )


def _load_folder(
    folder: Path,
    clip: str | Path | None,
    interpolate: float | None,
    device: str | torch.device,
    dtype: Dtype,
    compile: Compile,
) -> VideoClassifier:
    config = ModelConfig.from_json(read_model_config(folder), str(folder))
    share = _share_of_folder(folder, config, clip, interpolate)
    shapes = read_model_shapes(folder)
    text_files = folder / TEXT_FOLDER if needs_transformers(config.clip) else None
    if text_files is not None and (text_files.is_symlink() or not text_files.is_dir()):
        raise CheckpointError(
            f"{folder}: has no folder {TEXT_FOLDER!r} with the tokenizer of {config.clip.name}, and nothing outside a "
            "model folder is opened; save the model again"
        )
    with naming(folder), skip_init():
        towers = build_towers(
            config.clip, text_files=text_files, check=lambda plan: check_shapes(plan, _part(shapes, "clip."), folder)
        )
    expected = _part(shapes, "head.")
    expected.pop(_TRAIN_CLASSES, None)
    try:
        check_shapes(plan_of(lambda: VideoHead(config.head)), expected, folder)
        tensors = read_model_weights(folder)
        fit_state_dict(towers.model, _part(tensors, "clip."), folder)
        state = _part(tensors, "head.")
        with skip_init():
            head = VideoHead(config.head, state.get(_TRAIN_CLASSES))
    except (ConfigError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: its configuration does not describe a head ({one_line(error)})") from error
    fit_state_dict(head, state, folder)
    original, tuned_share = config.original, config.tuned_share
    if share is not None:
        interpolate_tower(towers, load_original(towers, original, clip, folder), share)
        original, tuned_share = original if share == 1.0 else None, share
    model = _finish(towers, head, config.frames, device, dtype, compile)
    model.original, model.tuned_share = original, tuned_share
    model.classes, model.prompts, model.reject_level = config.classes, config.prompts, config.reject_level
    return model


def _expanded_file(clip: str | Path | None) -> str | Path | None:
    """Return the path of a file below "~"; a tag stays as it is."""
    return clip if clip is None or not str(clip).startswith("~") else expanded(clip)


def _share_of_folder(
    folder: Path, config: ModelConfig, clip: str | Path | None, interpolate: float | None
) -> float | None:
    """Return the share to interpolate a folder's image tower at; None leaves it as it is.

    Raises:
        ConfigError: the model cannot be interpolated, or nothing says at which share.
    """
    original = config.original
    wanted = None if original is None else original.share
    if clip is None and interpolate in (None, 1.0):
        if interpolate is None and wanted not in (None, 1.0):
            log.warning(
                "%s: its training asks for evaluation with %g of its image tower and the rest of the original CLIP's; "
                "this is the tuned tower alone. Give interpolate=%g for the other",
                folder,
                wanted,
                wanted,
            )
        return None
    if original is None:
        reason = "records no original CLIP"
        if config.tuned_share != 1.0:
            reason = f"has an interpolated image tower already, with {config.tuned_share:g} of the tuned one"
        raise ConfigError(f"{folder}: {reason}, so interpolate and clip do not apply; give interpolate=1")
    share = wanted if interpolate is None else interpolate
    if share is None:
        raise ConfigError(f"{folder}: its training asks for no interpolation; give interpolate too, or leave out clip")
    return share


def _part(tensors: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _finish(
    towers: ClipTowers, head: VideoHead, frames: int, device: str | torch.device, dtype: Dtype, compile: Compile
) -> VideoClassifier:
    device = resolve_device(device, dtype)
    dtype = resolve_dtype(dtype, device)
    if compile is True and not isinstance(dtype, torch.dtype):
        raise ConfigError(f"compile=True: dtype={dtype!r} does not run in PyTorch; leave one of them out")
    towers.compiler.choose(compile)
    model = VideoClassifier(towers, head, frames)
    # Building the configuration checks the sizes against one another.
    _ = model.config
    if isinstance(dtype, torch.dtype):
        return model.to(device=device, dtype=dtype).eval()
    model.eval().quantize(backend=BACKENDS[dtype])
    return model
