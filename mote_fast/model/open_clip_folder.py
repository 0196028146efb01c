"""The CLIP towers of a model as a folder in open_clip's layout, for programs that know open_clip alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mote_fast.clip.clip_config import ClipConfig
from mote_fast.clip.text_files import TOKENIZER_FILES, write_text_files
from mote_fast.clip.towers import ClipTowers
from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.runtime.files import staged_folder
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.reading import expanded
from mote_fast.runtime.weights import OPEN_CLIP_CONFIG, check_replaceable, save_tensors

OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"


def write_open_clip_folder(folder: str | Path, towers: ClipTowers) -> None:
    """Write towers so that ``open_clip.create_model_and_transforms("local-dir:FOLDER")`` loads them.

    Raises:
        ConfigError: open_clip has no place for the tokenizer, or takes the text tower's configuration from the hub.
        CheckpointError: the folder holds something else, or cannot be written.
    """
    folder = expanded(folder)
    config = open_clip_config(towers.config)
    check_replaceable(folder, {OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, *TOKENIZER_FILES})
    with staged_folder(folder, CheckpointError) as part:
        copies = {name: value.detach().cpu().clone().contiguous() for name, value in towers.model.state_dict().items()}
        save_tensors(copies, part / OPEN_CLIP_WEIGHTS)
        write_text_files(towers, part)
        (part / OPEN_CLIP_CONFIG).write_text(to_json(config, indent=2) + "\n", encoding="utf-8")


def open_clip_config(config: ClipConfig) -> Mapping[str, Any]:
    """Return the content of ``open_clip_config.json``, with the activation and preprocessing of the weights.

    Raises:
        ConfigError: see ``write_open_clip_folder``.
    """
    if config.merges is not None:
        raise ConfigError(
            "format='open_clip' has no place for the tokenizer of a small text tower; use the default one"
        )
    if config.model["text_cfg"].get("hf_model_name"):
        raise ConfigError(
            "format='open_clip' is incomplete with a text tower of transformers, whose configuration open_clip takes "
            "from the hub; use the default one"
        )
    model = dict(config.model)
    vision = dict(model["vision_cfg"])
    if vision.get("timm_model_name"):
        # The folder has the weights.
        vision["timm_model_pretrained"] = False
    frames = config.preprocessing
    return {
        "model_cfg": {**model, "vision_cfg": vision, "quick_gelu": config.activation == "quick_gelu"},
        "preprocess_cfg": {
            "mean": frames.mean,
            "std": frames.std,
            "interpolation": frames.interpolation,
            "resize_mode": frames.resize_mode,
        },
    }
