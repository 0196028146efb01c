"""The CLIP that an image tower was tuned from: which one it was, and the interpolation with it (eq. (21))."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mote_fast.clip.clip_config import ClipConfig
from mote_fast.clip.fingerprint import Fingerprint
from mote_fast.clip.pretrained import SCHEMAS, load_towers
from mote_fast.clip.published import tag_config
from mote_fast.clip.towers import ClipTowers
from mote_fast.errors import CheckpointError, ConfigError, quoted

_TOWER = "visual."


@dataclass(frozen=True)
class OriginalClip:
    """What a model records of the CLIP that its image tower is tuned from.

    Attributes:
        fingerprint: SHA-256 of the image tower's weights before tuning, float32.
        tag: open_clip's tag of these weights, under the model's architecture; None if they came from elsewhere.
        share: share of the tuned tower that the configuration of the training wants at evaluation; None wants none.

    Raises:
        ConfigError: a value has the wrong type, or the share lies outside [0, 1].
    """

    fingerprint: str
    tag: str | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.fingerprint, str) or not isinstance(self.tag, str | None):
            raise ConfigError(f"the original CLIP must have texts as fingerprint and tag, got {quoted(self)}")
        if self.share is not None:
            check_share("share", self.share)


def check_share(name: str, share: float) -> None:
    """Check a share of the tuned image tower.

    Raises:
        ConfigError: it is no number in [0, 1].
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 <= share <= 1.0:
        raise ConfigError(f"{name} must lie in [0, 1], got {quoted(share)}")


def record_original(towers: ClipTowers, name: str | None, pretrained: str | Path | None) -> OriginalClip:
    """Describe towers that are not tuned yet.

    Args:
        towers: the towers, float32.
        name: the architecture that they were loaded as.
        pretrained: the tag or file that they were loaded from.
    """
    tag = str(pretrained) if name is not None and tag_config(name, str(pretrained)) else None
    return OriginalClip(_fingerprint(image_tower(towers)), tag)


def image_tower(towers: ClipTowers) -> dict[str, Tensor]:
    """Return the image tower's tensors of floating-point numbers; writing into them changes the tower."""
    state = towers.model.state_dict()
    return {name: tensor for name, tensor in state.items() if name.startswith(_TOWER) and tensor.is_floating_point()}


def load_original(
    towers: ClipTowers, recorded: OriginalClip | None, clip: str | Path | None, source: str | Path
) -> dict[str, Tensor]:
    """Load the image tower that a model was tuned from: float32 on the CPU, under the names of the model's.

    Args:
        towers: the model's.
        recorded: what the model records of it; None checks the shapes alone.
        clip: a weights file, an open_clip tag, or "hf-hub:..." or "local-dir:..."; None takes the recorded tag.
        source: the model, for messages.

    Raises:
        ConfigError: ``clip`` is None and no tag is recorded.
        CheckpointError: the weights cannot be read, or are others than those that the model was tuned from.
        ActivationMismatchError: they were trained with another activation than the model.
    """
    if clip is None:
        if recorded is None or recorded.tag is None:
            raise ConfigError(f"{source}: was tuned from a CLIP without a tag; give clip, its weights file")
        clip = recorded.tag
        # A model may be a stranger's: it selects among open_clip's own tags, and never a file.
        if not tag_config(towers.config.name or "", clip):
            raise CheckpointError(
                f"{source}: records {quoted(clip)}, which is no tag of open_clip for its architecture"
            )
    found = image_tower(_load_towers(towers.config, str(clip), source))
    wanted = image_tower(towers)
    different = [
        name for name in sorted(wanted.keys() | found.keys()) if _shape(wanted.get(name)) != _shape(found.get(name))
    ]
    if different:
        raise _other_clip(clip, source, f"{', '.join(different[:4])} differ")
    if recorded is not None and _fingerprint(found) != recorded.fingerprint:
        raise _other_clip(clip, source, "its image tower has other weights")
    return found


@torch.no_grad()
def interpolate_tower(towers: ClipTowers, original: Mapping[str, Tensor], share: float) -> None:
    """Set the image tower to ``share`` of itself and ``1 - share`` of the original, in place."""
    for name, tensor in image_tower(towers).items():
        tensor.copy_(share * tensor + (1.0 - share) * original[name])


def _load_towers(config: ClipConfig, clip: str, source: str | Path) -> ClipTowers:
    try:
        if clip.startswith(SCHEMAS):
            return load_towers(clip, activation=config.activation)
        known = config.preprocessing if Path(clip).is_file() else None
        return load_towers(config.name, clip, activation=config.activation, preprocessing=known)
    except ConfigError as error:
        # Of another architecture, image size or preprocessing than the model.
        raise _other_clip(clip, source, str(error)) from error


def _other_clip(clip: str | Path, source: str | Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{clip}: is not the CLIP that {source} was tuned from ({reason})")


def _fingerprint(tower: Mapping[str, Tensor]) -> str:
    # Without the configuration, which a file and a tag of the same weights state differently.
    return Fingerprint().of({}, tower)


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape
