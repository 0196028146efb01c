"""The configuration of a training run as one frozen value, read from YAML and the command line and written back."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from mote_fast.clip.clip_config import config_of_name
from mote_fast.clip.pretrained import SCHEMAS
from mote_fast.errors import ConfigError, quoted
from mote_fast.head.video_head import MAX_FRAMES
from mote_fast.model.model_defaults import HUB_SCHEMA
from mote_fast.model.zoo import list_models
from mote_fast.runtime.reading import expanded
from mote_fast.training.config import released_yaml
from mote_fast.training.config.sections import DataConfig, ModelSection, OptimConfig, RunConfig
from mote_fast.training.config.settings import Setting, flatten, parse_overrides, read_document
from mote_fast.training.config.shipped import config_path, shipped
from mote_fast.training.config.values import coerce
from mote_fast.training.method import TrainingMethod

__all__ = [
    "DataConfig",
    "ModelSection",
    "OptimConfig",
    "RunConfig",
    "TrainConfig",
    "TrainingMethod",
    "load_config",
    "stated_options",
    "to_dict",
    "to_yaml",
]


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run.

    Raises:
        ConfigError: the sections contradict one another.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelSection = field(default_factory=ModelSection)
    method: TrainingMethod = field(default_factory=TrainingMethod)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.optim.precision == "fp16" and self.run.device == "cpu":
            raise ConfigError("optim.precision 'fp16' needs a GPU, but run.device is 'cpu'; use 'bf16' or 'fp32'")
        if self.method.loss == "bce" and self.data.flip_labels is not None:
            raise ConfigError("method.loss 'bce' and data.flip_labels: mirroring swaps the one label of a video")
        self._check_features()
        if self.model.header != "mean" and self.data.frames > MAX_FRAMES:
            raise ConfigError(f"data.frames must be at most {MAX_FRAMES} with a temporal head, got {self.data.frames}")
        model = self.model
        random = model.clip_pretrained is None and not model.arch.startswith(SCHEMAS)
        if model.interpolate is not None and model.checkpoint is None and random:
            raise ConfigError(
                f"model.interpolate is {model.interpolate:g}, but model.clip_pretrained is null: random towers have no "
                "original; set model.interpolate to null"
            )

    def _check_features(self) -> None:
        """Check that nothing would change the frame features during the run."""
        if self.data.features is None:
            return
        for key, value, needed in (
            ("model.train_clip", self.model.train_clip, False),
            ("data.augmentation", self.data.augmentation, "none"),
        ):
            if value != needed:
                raise ConfigError(
                    f"data.features are what a frozen image tower gives for unchanged videos, but {key} is "
                    f"{quoted(value)}; set {key}={str(needed).lower()}, or leave data.features out"
                )


# The type of every option, by its dotted key.
_SECTIONS: Mapping[str, type] = get_type_hints(TrainConfig)
OPTIONS: Mapping[str, Any] = {
    f"{section}.{name}": annotation
    for section, cls in _SECTIONS.items()
    for name, annotation in get_type_hints(cls).items()
}

_REQUIRED = {"data.train_list": "the list of training videos", "data.labels": "the file of class names"}
_FILES = (
    "data.train_list",
    "data.val_list",
    "data.labels",
    "data.templates",
    "data.descriptions",
    "data.flip_labels",
    "data.features",
    "model.checkpoint",
    "run.resume",
)
# Files that a configuration may follow from, each the base of the one before.
_MAX_BASES = 16
_RESUME_WORDS = ("auto", "none")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training configuration.

    A file has our schema (the sections of ``TrainConfig``) or that of the official code, recognised by its sections. A
    file of ours may name another one as ``base``, relative to itself or one of ``shipped``, which is read first. Paths
    of data are relative to the working folder.

    Args:
        path: a YAML file, or the name of one that comes with the package, such as "smoke".
        overrides: ``key=value`` texts with our keys, such as "optim.lr=1e-4"; for a file of the official schema also
            with official keys, which ours override.

    Raises:
        ConfigError: a file or key is unknown, a value has the wrong type, is out of range or contradicts another, or a
            named file does not exist. The message is one line that names the file and the key.
    """
    path = config_path(path)
    given = parse_overrides(overrides)
    document = read_document(path)
    if released_yaml.is_released(document):
        theirs = {key: setting for key, setting in given.items() if key in released_yaml.KEYS - OPTIONS.keys()}
        settings = released_yaml.translate(flatten(document, str(path)) | theirs)
        known = [*OPTIONS, *released_yaml.KEYS]
        given = {key: setting for key, setting in given.items() if key not in theirs}
    else:
        settings = _with_bases(path, document, ())
        known = [*OPTIONS]
    settings |= given
    config = _build(_typed(settings, known), settings, str(path))
    _check_files(config, settings, str(path))
    _check_arch(config, settings, str(path))
    return config


def stated_options(path: str | Path) -> dict[str, Any]:
    """Return the options that a file states, by dotted key of ours; each has its type, and nothing else is checked.

    Raises:
        ConfigError: see ``load_config``.
    """
    path = config_path(path)
    settings = _with_bases(path, read_document(path), ())
    return _typed(settings, [*OPTIONS, *released_yaml.KEYS])


def to_dict(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """Return the configuration as plain YAML values: every option, by section."""
    return {
        section: {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        for section, values in asdict(config).items()
    }


def to_yaml(config: TrainConfig) -> str:
    """Return the configuration as a YAML file; ``load_config`` reads it back to an equal configuration."""
    # Non-ASCII characters are escaped: unescaped, some (U+0085) are read back as others.
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def _with_bases(path: Path, document: dict[Any, Any], above: tuple[Path, ...]) -> dict[str, Setting]:
    """Return a document's settings merged over those of its base, and of the base's base."""
    here = path.resolve()
    if here in above:
        chain = " -> ".join(entry.name for entry in (*above[above.index(here) :], here))
        raise ConfigError(f"{path}: base leads back to where it started: {chain}")
    if len(above) == _MAX_BASES:
        raise ConfigError(f"{path}: is the base of a base, over {_MAX_BASES} times")
    settings = flatten(document, str(path))
    if released_yaml.is_released(document):
        return released_yaml.translate(settings)
    if "base" not in settings:
        return settings
    name = settings.pop("base").value
    base = _base(path, name)
    return _with_bases(base, read_document(base), (*above, here)) | settings


def _base(path: Path, name: object) -> Path:
    if isinstance(name, str) and os.path.isfile(path.parent / name):
        return path.parent / name
    if isinstance(name, str) and name in (known := shipped()):
        return known[name]
    raise ConfigError(
        f"{path}: base must name a configuration file, relative to this one, or one that comes with mote_fast, "
        f"got {quoted(name)}"
    )


def _typed(settings: Mapping[str, Setting], known: Sequence[str]) -> dict[str, Any]:
    """Return the values by key, each converted to its option's type."""
    values: dict[str, Any] = {}
    for key, (value, source) in settings.items():
        if key in _SECTIONS and value in (None, {}):
            # A section without any keys.
            continue
        if key not in OPTIONS:
            raise ConfigError(f"{source}: {_unknown(key, known)}")
        try:
            values[key] = coerce(value, OPTIONS[key])
        except ConfigError as error:
            raise ConfigError(f"{source}: {key} {error}") from error
    return values


def _build(values: Mapping[str, Any], settings: Mapping[str, Setting], path: str) -> TrainConfig:
    sections: dict[str, Any] = {}
    for section, cls in _SECTIONS.items():
        own = {each.name: values[key] for each in fields(cls) if (key := f"{section}.{each.name}") in values}
        try:
            sections[section] = cls(**own)
        except ConfigError as error:
            # The message starts with the name of the field at fault.
            key = f"{section}.{str(error).split(maxsplit=1)[0]}"
            raise ConfigError(f"{_source(key, settings, path)}: {section}.{error}") from error
    try:
        return TrainConfig(**sections)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_files(config: TrainConfig, settings: Mapping[str, Setting], path: str) -> None:
    """Check that the files that a run needs are named and exist."""
    values = to_dict(config)
    for key in _FILES:
        section, _, name = key.partition(".")
        value = values[section][name]
        if not value and key == "data.train_list" and _is_evaluation_file(path):
            raise ConfigError(f"{path}: an evaluation file of the official code; use: mote-fast eval --config {path}")
        if not value and key in _REQUIRED:
            raise ConfigError(f"{path}: {key} is missing; it names {_REQUIRED[key]}")
        known = {"run.resume": _RESUME_WORDS, "model.checkpoint": list_models()}.get(key, ())
        if key == "model.checkpoint" and value and (value.startswith(HUB_SCHEMA) or expanded(value).exists()):
            continue
        if value and value not in known and not os.path.exists(value):
            raise ConfigError(f"{_source(key, settings, path)}: {key} names {quoted(value)}, which does not exist")


def _is_evaluation_file(path: str) -> bool:
    """Whether this is one of the official files that only the test scripts read."""
    document = read_document(path)
    return released_yaml.is_released(document) and "solver" not in document


def _check_arch(config: TrainConfig, settings: Mapping[str, Setting], path: str) -> None:
    """Refuse an unknown architecture before loading; architectures of other hubs are known only at loading."""
    if config.model.checkpoint is None and not config.model.arch.startswith(SCHEMAS):
        try:
            config_of_name(config.model.arch)
        except ConfigError as error:
            raise ConfigError(f"{_source('model.arch', settings, path)}: model.arch: {error}") from error


def _source(key: str, settings: Mapping[str, Setting], path: str) -> str:
    return settings[key].source if key in settings else path


def _unknown(key: str, known: Sequence[str]) -> str:
    """Return the message for an unknown key, with the key that was probably meant."""
    if key in _SECTIONS:
        return f"{key} is a section; it holds keys, such as {next(k for k in OPTIONS if k.startswith(key + '.'))}"
    section, _, name = key.rpartition(".")
    last = {option.rpartition(".")[2]: option for option in reversed(known)}
    close = difflib.get_close_matches(key, known, 1, cutoff=0.75) or [
        last[match] for match in difflib.get_close_matches(name, last, 1, cutoff=0.75)
    ]
    if close:
        return f"unknown key {quoted(key)}; did you mean {close[0]!r}?"
    return f"unknown key {quoted(key)}; {_listing(section, known)}"


def _listing(section: str, known: Iterable[str]) -> str:
    names = [option.rpartition(".")[2] for option in known if option.rpartition(".")[0] == section]
    return f"{section} has {', '.join(names)}" if section and names else f"the sections are {', '.join(_SECTIONS)}"
