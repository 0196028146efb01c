"""Models that have a name: where their weights are, what was published about them, and how they come onto the disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mote_fast.clip import feature_cache
from mote_fast.clip.pretrained import fetch_tag
from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.model.hub import fetch_folder
from mote_fast.model.model_defaults import CLIP_SCHEMA, DEFAULT_FRAMES, HUB_SCHEMA
from mote_fast.runtime.environment import PRESETS
from mote_fast.runtime.reading import expanded
from mote_fast.runtime.transfer import TransferProgress, fetch

log = logging.getLogger(__name__)

# The model of the demo; its weights come with the package.
SHIPPED_MODEL = "tiny"


@dataclass(frozen=True)
class PublishedModel:
    """A model with a name, for ``mote_fast.load``.

    Attributes:
        name: the name.
        summary: what it is, in a few words.
        architecture: its CLIP, in open_clip's names; None for CLIP's own of the package.
        clip_tag: open_clip's tag of the original CLIP that a released file needs; None if the model is complete.
        frames: T, frames per view.
        license: the licence, and what it is stated for.
        figures: what its authors publish about it, percent.
        url: where its file is; None for a folder that comes with the package.
        size: bytes of the file; None if nobody stated it, so that the server's word counts.
        sha256: hash of the file; None if nobody stated it, so that it is recorded at the first fetch.
    """

    name: str
    summary: str
    architecture: str | None
    clip_tag: str | None
    frames: int
    license: str
    figures: Mapping[str, float]
    url: str | None
    size: int | None = None
    sha256: str | None = None

    @property
    def path(self) -> Path:
        """Where the weights are, or will be once they are fetched.

        Raises:
            CheckpointError: this user has no cache folder.
        """
        if self.url is None:
            return PRESETS / self.name
        caches = feature_cache.default_cache_folder()
        if caches is None:
            raise CheckpointError(
                f"{self.name}: this user has no home folder to keep it in; set HOME or XDG_CACHE_HOME, or fetch "
                f"{self.url} and load the file by its path"
            )
        return caches / "models" / self.url.rsplit("/", 1)[1]


_RELEASE = "https://github.com/ZMHH-H/MoTE/releases/download/v1.0/"
_RELEASE_LICENSE = "Apache-2.0, that of the authors' repository; none is stated for the weights alone"

# The figures are those of the paper's Table 4, of 4 clips x 3 crops. Nobody published sizes or hashes of the files.
_MODELS = (
    PublishedModel(
        "mote-b16-k400",
        "MoTE with CLIP ViT-B/16, trained on Kinetics-400 by its authors",
        "ViT-B-16",
        "openai",
        DEFAULT_FRAMES,
        _RELEASE_LICENSE,
        {"K400 top-1": 83.0, "HM_ZS": 67.9, "trade-off": 74.7},
        _RELEASE + "MoTE_B16.pt",
    ),
    PublishedModel(
        "mote-l14-k400",
        "MoTE with CLIP ViT-L/14, trained on Kinetics-400 by its authors",
        "ViT-L-14",
        "openai",
        DEFAULT_FRAMES,
        _RELEASE_LICENSE,
        {"K400 top-1": 86.8, "HM_ZS": 74.4, "trade-off": 80.1},
        _RELEASE + "MoTE_L14.pt",
    ),
    PublishedModel(
        SHIPPED_MODEL,
        "trained on drawn videos; knows nothing about real ones",
        None,
        None,
        DEFAULT_FRAMES,
        "Apache-2.0",
        {},
        None,
    ),
)


def list_models() -> dict[str, PublishedModel]:
    """Return the models with a name, by name. ``load`` takes these, and "clip:ARCHITECTURE/TAG" of open_clip."""
    return {model.name: model for model in _MODELS}


def download(name: str, *, original: bool = True, progress: TransferProgress | None = None) -> Path:
    """Return the path of a model's weights, which are fetched the first time and checked every time.

    The file is kept in the folder "models" of the user's cache folder. An interrupted download is continued. A hash
    that nobody published is recorded at the first fetch.

    Args:
        name: a name of ``list_models``.
        original: fetch the original CLIP too that the model needs, unless it is on this machine.
        progress: called with the bytes so far and the size of the file, after each piece.

    Raises:
        ConfigError: there is no model of this name.
        CheckpointError: the file cannot be fetched or kept, or is not the expected one; see
            ``mote_fast.runtime.transfer.fetch``.
    """
    model = list_models().get(name)
    if model is None:
        raise ConfigError(f"{name!r} is none of the models {', '.join(list_models())}")
    path = model.path
    if model.url is None:
        return path
    if progress is None and not path.exists():
        log.warning("%s: fetching %s to %s, once", name, model.url, path)
    fetch(model.url, path, sha256=model.sha256, size=model.size, progress=progress)
    if original and model.architecture is not None and model.clip_tag is not None:
        fetch_tag(model.architecture, model.clip_tag)
    return path


def find_weights(path: str | Path) -> Path:
    """Return the file or folder that ``path`` names: itself, or the weights of a model with this name, or of the hub.

    Raises:
        CheckpointError: there is no such file, folder or model, or the model's file cannot be fetched.
    """
    if str(path).startswith(HUB_SCHEMA):
        return fetch_folder(str(path))
    if (found := expanded(path)).exists():
        return found
    if str(path) in list_models():
        return download(str(path), original=False)
    raise CheckpointError(
        f"{path}: no such file or folder, and none of the models {', '.join(list_models())}, "
        f"{CLIP_SCHEMA}ARCHITECTURE/TAG, {HUB_SCHEMA}ORGANIZATION/NAME"
    )


def is_drawn_only(folder: Path) -> bool:
    """Whether a model folder is that of the shipped model, which knows drawn videos alone."""
    return folder.resolve() == (PRESETS / SHIPPED_MODEL).resolve()
