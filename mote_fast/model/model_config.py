"""The configuration of a model: frozen dataclasses, the presets, and their JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mote_fast.clip.clip_config import TEST_NAME, ClipConfig, image_size_of
from mote_fast.clip.prompts import PAPER_PROMPTS, Prompts
from mote_fast.clip.texts import check_labels
from mote_fast.data.transforms import Preprocessing
from mote_fast.errors import CheckpointError, ConfigError, one_line, quoted
from mote_fast.head.head_config import HeadConfig
from mote_fast.model.model_defaults import DEFAULT_FRAMES
from mote_fast.model.original import OriginalClip, check_share
from mote_fast.runtime.checks import check_count
from mote_fast.timeline.rejection import check_level

# Version of the folder format; raised when older code cannot read the new format. Version 1 had no head options; its
# heads have the defaults. Versions 1 and 2 had the normalisation alone; their frames are otherwise preprocessed as
# OpenAI's. Versions 1 to 3 did not record the original CLIP, versions 1 to 4 neither class names nor prompts, and
# versions 1 to 5 no level of rejection.
FORMAT_VERSION = 6
READABLE_VERSIONS = (1, 2, 3, 4, 5, 6)

# Frames of a view that mean pooling takes; a temporal head takes fewer.
MAX_FRAMES = 2**12

# Temporal layers per architecture (docs/method.md, Sizes); others take DEFAULT_LAYERS.
PRESET_LAYERS: Mapping[str, int] = {"ViT-B-16": 4, "ViT-L-14": 6, TEST_NAME: 2}
DEFAULT_LAYERS = 4


@dataclass(frozen=True)
class ModelConfig:
    """A whole classifier.

    Attributes:
        clip: its towers.
        head: its head.
        frames: T, frames per view.
        original: the CLIP that the image tower is tuned from; None if it started from random weights, is interpolated
            already, or nobody recorded it.
        tuned_share: share of tuned weights in the image tower; the rest is the original CLIP's.
        classes: the class names that it was trained on, in the order of their labels; None if nobody recorded them.
        prompts: the texts around class names that it was trained with.
        reject_level: see ``VideoModel``.
    """

    clip: ClipConfig
    head: HeadConfig
    frames: int = DEFAULT_FRAMES
    original: OriginalClip | None = None
    tuned_share: float = 1.0
    classes: Sequence[str] | None = None
    prompts: Prompts = field(default=PAPER_PROMPTS, hash=False)
    reject_level: float | None = None

    def __post_init__(self) -> None:
        check_count("frames", self.frames, 1, MAX_FRAMES)
        check_share("tuned_share", self.tuned_share)
        if self.reject_level is not None:
            check_level("reject_level", self.reject_level)
        if self.classes is not None:
            check_labels(self.classes)
            object.__setattr__(self, "classes", tuple(self.classes))
        if self.head.embed_dim != self.clip.embed_dim:
            raise ConfigError(
                f"the head takes features of width {self.head.embed_dim}, the towers give {self.clip.embed_dim}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        prompts = values.pop("prompts")
        for name in ("clip", "head", "original"):
            values[name] = None if values[name] is None else asdict(values[name])
        # The paper's are those of a model that records none.
        own = None if prompts == PAPER_PROMPTS else {each.name: getattr(prompts, each.name) for each in fields(prompts)}
        return {"format_version": FORMAT_VERSION, **values, "prompts": own}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str) -> ModelConfig:
        """Read the output of ``to_json``.

        Raises:
            CheckpointError: keys are missing, unknown, or from a newer version of the format.
        """
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{source}: not a model configuration (holds {quoted(values)})")
        values = dict(values)
        version = values.pop("format_version", None)
        if version not in READABLE_VERSIONS:
            raise CheckpointError(
                f"{source}: format version {quoted(version)}, this release reads up to {FORMAT_VERSION}"
            )
        try:
            clip = dict(values.pop("clip"))
            if version < 3:
                own = {"size": image_size_of(clip["model"]), "mean": clip.pop("mean"), "std": clip.pop("std")}
            else:
                own = dict(clip.pop("preprocessing"))
            own |= {"mean": tuple(own["mean"]), "std": tuple(own["std"])}
            if clip.get("merges") is not None:
                clip["merges"] = _texts(clip["merges"])
            towers = ClipConfig(**clip, preprocessing=Preprocessing(**own))
            original = values.pop("original", None)
            recorded = None if original is None else OriginalClip(**original)
            prompts = values.pop("prompts", None)
            texts = PAPER_PROMPTS if prompts is None else Prompts(**prompts)
            return cls(clip=towers, head=HeadConfig(**values.pop("head")), original=recorded, prompts=texts, **values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{source}: not a model configuration ({one_line(error)})") from error


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"merges must be a list of texts, got {quoted(values)}")
    return tuple(values)


def default_layers(name: str | None) -> int:
    """Return a preset's default number of temporal layers."""
    return PRESET_LAYERS.get((name or "").removesuffix("-quickgelu"), DEFAULT_LAYERS)
