"""Many generated files: each is written, played, read in every way, and deleted; counts and failures remain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from av.error import FFmpegError

from mote_fast.data import sample_frames
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.decode import probe
from mote_fast.data.items import VideoItem
from mote_fast.data.loaders import make_loader
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing, crop_offsets, short_side_size
from mote_fast.data.views import Views
from mote_fast.errors import UndecodableVideoError
from tests.data.corpus.checks import Outcome, check, compare
from tests.data.corpus.recipes import Recipe
from tests.data.corpus.truth import Playback, play
from tests.data.corpus.writing import UnwritableError, write

# Codecs that DALI decodes on a CPU.
DALI_CODECS = frozenset({"vp9", "mjpeg"})


@dataclass
class Survey:
    """Counts by kind, a line for each failure, and the honest files that were refused, by backend."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    refused_honest: list[tuple[str, Recipe, str]] = field(default_factory=list)

    def add(self, recipe: Recipe, outcome: Outcome) -> None:
        """Count one file."""
        self.counts["files"] += 1
        self.counts["honest files"] += not recipe.lie
        self.counts["wrong"] += bool(outcome.wrong)
        self.failures += [f"{recipe!r}: {line}" for line in outcome.wrong]
        for where, reason in outcome.refused.items():
            self.counts[f"refused by {where}"] += 1
            if not recipe.lie:
                self.counts[f"honest, refused by {where}"] += 1
                self.refused_honest.append((where, recipe, reason))


def survey(recipes: Iterable[Recipe], folder: Path, keep: frozenset[str] = frozenset()) -> tuple[Survey, list[Path]]:
    """Check the file of each recipe; the files of the codecs ``keep`` are not deleted, and returned."""
    found, kept = Survey(), []
    for number, recipe in enumerate(recipes):
        try:
            path = write(recipe, folder, f"{number:04d}")
        except UnwritableError:
            found.counts["not written"] += 1
            continue
        found.add(recipe, check_recipe(recipe, path))
        if recipe.codec in keep:
            kept.append(path)
        else:
            path.unlink()
    return found, kept


def check_recipe(recipe: Recipe, path: Path) -> Outcome:
    """Check a written file; for an honest one the playback must be what was drawn."""
    try:
        playback = play(path)
    except (FFmpegError, ValueError) as error:
        return _check_unplayable(path, error)
    if not recipe.lie and playback.numbers != list(range(recipe.frames)):
        return Outcome([f"the corpus is wrong: plays {playback.numbers} {playback.broke}"], {})
    if recipe.lie == "garbage":
        # What is behind the end may be decoded to anything; only the count of such pictures is compared.
        playback = playback._replace(pictures=playback.pictures[: recipe.frames], more=len(playback.pictures))
    return check(path, playback, recipe.orientation, recipe.seed)


def _check_unplayable(path: Path, error: Exception) -> Outcome:
    try:
        probe(path)
    except UndecodableVideoError as refused:
        return Outcome([], {"everyone": refused.reason})
    except Exception as other:
        return Outcome([f"probe: {type(other).__name__}: {other}"], {})
    return Outcome([f"probe reads a file that does not play: {error}"], {})


def check_with_dali(paths: dict[Path, tuple[Playback, int]]) -> list[str]:
    """Load clips of all files through DALI's CPU graph; a line for each wrong picture.

    Args:
        paths: the playback and the orientation of each file.
    """
    size, frames = 96, 4
    plain = ClipRecipe(frames, Preprocessing(size, (0, 0, 0), (1 / 255,) * 3), Views(1, 3), crops_along="long_side")
    dataset = VideoDataset([VideoItem(str(path), at) for at, path in enumerate(paths)], plain)
    loader = make_loader(dataset, LoaderOptions(8, training=False, workers=2), "dali")
    names, outcome = list(paths), Outcome([], {})
    try:
        for batch in loader.epoch(0):
            clips = batch.pixels.view(-1, 3, frames, 3, size, size)
            for index, clip in zip(batch.indices.tolist(), clips, strict=True):
                path = names[index]
                playback, orientation = paths[path]
                info = probe(path)
                crops = clip.permute(0, 1, 3, 4, 2)
                height, width = short_side_size(info.height, info.width, size)
                whole = crops.new_zeros(frames, height, width, 3)
                for crop, (top, left) in zip(crops, crop_offsets(height, width, size, 3, "long_side"), strict=True):
                    whole[:, top : top + size, left : left + size] = crop
                chosen = sample_frames(info.num_frames, frames, "test")[0].tolist()
                if info.num_frames == len(playback.pictures):
                    wanted = [playback.pictures[at] for at in chosen]
                    compare(f"{path.name} by DALI", whole, wanted, orientation, outcome)
    finally:
        loader.close()
    return outcome.wrong
