"""Translates the official code's YAML schema (sections data, network, solver, logging) into ours.

Every key that appears in its configurations is listed once below: renamed, converted, accepted in one value only, or
ignored because it never had an effect. Its ancestors Text4Vis and BIKE have the same sections; a file of theirs trains
another method, and lacks the keys of ``REQUIRED``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from mote_fast.errors import ConfigError
from mote_fast.model.model_defaults import DEFAULT_INTERPOLATION
from mote_fast.training.config.settings import Setting
from mote_fast.training.config.values import coerce, show

log = logging.getLogger(__name__)

# Sections that only the official schema has.
SECTIONS = frozenset({"network", "solver", "logging"})

# The same meaning under another name (or the same).
RENAMED: Mapping[str, str] = {
    "seed": "run.seed",
    "resume": "run.resume",
    "pretrain": "model.checkpoint",
    "data.train_list": "data.train_list",
    "data.train_root": "data.train_root",
    "data.val_list": "data.val_list",
    "data.val_root": "data.val_root",
    "data.label_list": "data.labels",
    "data.num_segments": "data.frames",
    "data.input_size": "data.size",
    "data.batch_size": "data.batch_size",
    "data.workers": "data.workers",
    "data.image_tmpl": "data.frame_template",
    "data.dense": "data.dense",
    "network.temporal_layer": "model.layers",
    "network.num_experts": "model.experts",
    "solver.type": "optim.schedule",
    "solver.epochs": "optim.epochs",
    "solver.lr": "optim.lr",
    "solver.lr_warmup_step": "optim.warmup_epochs",
    "solver.weight_decay": "optim.weight_decay",
    "solver.clip_ratio": "optim.clip_ratio",
    "solver.grad_accumulation_steps": "optim.accumulation",
    "logging.print_freq": "run.log_every",
    "logging.eval_freq": "run.eval_every",
}

# Switches of the official family that MoTE sets to one value; other values would be another method.
ONLY: Mapping[str, tuple[tuple[object, ...], str]] = {
    "data.modality": (("video", "RGB"), "only videos and folders of RGB frames are read"),
    "data.random_shift": ((True,), "training draws its frames at random"),
    "network.tm": ((False,), "temporal modules inside the image tower are not part of MoTE"),
    "network.joint_st": ((False,), "joint space-time attention is not part of MoTE"),
    "network.drop_out": ((0,), "MoTE trains without dropout"),
    "network.emb_dropout": ((0,), "MoTE trains without dropout"),
    "network.interaction": (("DP",), "videos and labels are compared by their dot product"),
    "solver.optim": (("adamw",), "the optimiser is AdamW"),
    "solver.loss_type": (("CE",), "the loss is cross-entropy"),
    "solver.start_epoch": ((0,), "continue a run with run.resume"),
    "solver.evaluate": ((False,), "evaluate with the command 'mote-fast eval'"),
}

# Without a default in the official code. The files of Text4Vis and BIKE lack them.
REQUIRED = ("network.temporal_layer", "network.num_experts")

# Never read by the official code, or read without an effect on training.
# Steps of the learning rate that one number may stand for.
_MAX_DECAYS = 1000

IGNORED: frozenset[str] = frozenset(
    {
        "data.seg_length",
        "data.num_classes",
        "data.index_bias",
        "data.randaug",
        "network.type",
        "network.drop",
        "network.fix_text",
        "solver.epoch_offset",
        "solver.momentum",
    }
)


def is_released(document: Mapping[Any, Any]) -> bool:
    """Return whether a YAML document has the official schema, judged by its sections."""
    return not SECTIONS.isdisjoint(document)


def translate(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return official settings under our keys; one warning names the ignored ones.

    Empty keys take their defaults, as in the official code.

    Raises:
        ConfigError: a key has a value that selects a method other than MoTE, or the head's sizes are missing. Unknown
            keys are returned unchanged, for the caller to report.
    """
    given = {key: setting for key, setting in settings.items() if setting.value is not None}
    _check_required(given)
    unread = IGNORED
    if "solver.type" not in given or given["solver.type"].value == "cosine":
        unread |= {"solver.lr_decay_step"}
    ignored = sorted(given.keys() & unread)
    if ignored:
        log.warning(
            "%s: these keys have no effect here, nor had they in the official code: %s",
            given[ignored[0]].source,
            ", ".join(ignored),
        )
    translated: dict[str, Setting] = {}
    if given:
        # The official code has no key for it, and always recomputes.
        translated["optim.grad_checkpointing"] = Setting(True, next(iter(given.values())).source)
    for key, setting in given.items():
        if key in unread:
            continue
        if key in ONLY:
            _check_only(key, setting)
        elif key in RENAMED:
            translated[RENAMED[key]] = setting
        elif key in CONVERTED:
            translated |= {ours: Setting(value, setting.source) for ours, value in CONVERTED[key](key, given).items()}
        else:
            translated[key] = setting
    return translated


def _check_required(given: Mapping[str, Setting]) -> None:
    """Check that a network with a temporal transformer says how many layers and experts it has."""
    network = [setting for key, setting in given.items() if key.startswith("network.")]
    if not network or ("network.sim_header" in given and given["network.sim_header"].value == "None"):
        return
    for key in REQUIRED:
        if key not in given:
            raise ConfigError(
                f"{network[0].source}: {key} is missing, which the official code requires; a file of Text4Vis or BIKE "
                "trains a plain transformer: network.num_experts=0 network.temporal_layer=6"
            )


def _check_only(key: str, setting: Setting) -> None:
    values, reason = ONLY[key]
    # 0 equals 0.0, but 0 and false are different.
    if not any(
        setting.value == value and isinstance(setting.value, bool) == isinstance(value, bool) for value in values
    ):
        expected = " or ".join(show(value) for value in values)
        raise ConfigError(f"{setting.source}: {key} must be {expected}, got {show(setting.value)}: {reason}")


def _read(key: str, settings: Mapping[str, Setting], annotation: Any) -> Any:
    """Return the value of a key, checked against a type."""
    value, source = settings[key]
    try:
        return coerce(value, annotation)
    except ConfigError as error:
        raise ConfigError(f"{source}: {key} {error}") from error


def architecture(name: str) -> str:
    """Return open_clip's name for one of OpenAI's: "ViT-B/16" -> "ViT-B-16", "ViT-L/14@336px" -> "ViT-L-14-336".

    The official code spells the latter "ViT-L/14-336px".
    """
    return name.replace("/", "-").replace("@336px", "-336").replace("-336px", "-336")


def _arch(key: str, settings: Mapping[str, Setting]) -> dict[str, object]:
    return {"model.arch": architecture(_read(key, settings, str))}


def _init(key: str, settings: Mapping[str, Setting]) -> dict[str, object]:
    if not _read(key, settings, bool):
        return {"model.clip_pretrained": None}
    # The official test scripts interpolate every checkpoint.
    return {"model.clip_pretrained": "openai", "model.interpolate": DEFAULT_INTERPOLATION}


def _fix_video(key: str, settings: Mapping[str, Setting]) -> dict[str, object]:
    return {"model.train_clip": not _read(key, settings, bool)}


def _header(key: str, settings: Mapping[str, Setting]) -> dict[str, object]:
    name, source = settings[key]
    headers = {"Transf": "mote", "None": "mean"}
    if name not in headers:
        raise ConfigError(f"{source}: {key} must be 'Transf' or 'None', got {show(name)}")
    return {"model.header": headers[str(name)]}


def _dataset(key: str, settings: Mapping[str, Setting]) -> dict[str, object]:
    # The official code recognises Something-Something by its name, and augments it differently.
    name = _read(key, settings, str)
    if name == "charades":
        raise ConfigError(
            f"{settings[key].source}: {key}: Charades's own annotations are not read here; write a list with several "
            "labels a video (docs/data.md) and another name"
        )
    something = "something" in name
    return {"data.augmentation": "ssv2" if something else "kinetics"}


def _output(key: str, settings: Mapping[str, Setting]) -> dict[str, object]:
    # As in the official code, each data set and architecture has its own folder, so that two runs never share one.
    parts = [_read(key, settings, str)]
    if "data.dataset" in settings:
        parts.append(_read("data.dataset", settings, str))
    if "network.arch" in settings:
        parts.append(architecture(_read("network.arch", settings, str)))
    return {"run.output": str(PurePath(*parts))}


def _decay_steps(key: str, settings: Mapping[str, Setting]) -> dict[str, object]:
    value, source = settings[key]
    if not isinstance(value, int) or isinstance(value, bool):
        return {"optim.milestones": value}
    if value < 1 or "solver.epochs" not in settings:
        raise ConfigError(
            f"{source}: {key} as one number must be at least 1 and needs solver.epochs, got {show(value)}"
        )
    epochs = _read("solver.epochs", settings, int)
    if epochs // value > _MAX_DECAYS:
        raise ConfigError(f"{source}: {key} of {value} decays more than {_MAX_DECAYS} times in {epochs} epochs")
    return {"optim.milestones": list(range(value, epochs + 1, value))}


Rule = Callable[[str, Mapping[str, Setting]], dict[str, object]]

# Keys in another form, or computed from several keys.
CONVERTED: Mapping[str, Rule] = {
    "data.dataset": _dataset,
    "data.output_path": _output,
    "network.arch": _arch,
    "network.init": _init,
    "network.fix_video": _fix_video,
    "network.sim_header": _header,
    "solver.lr_decay_step": _decay_steps,
}

KEYS: frozenset[str] = frozenset(RENAMED) | frozenset(CONVERTED) | frozenset(ONLY) | IGNORED
