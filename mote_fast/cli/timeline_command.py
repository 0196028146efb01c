"""``mote-fast timeline``: when which label fits a video."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mote_fast.cli import inputs, outputs
from mote_fast.cli.rejection_options import check_rejection, rejection_of
from mote_fast.cli.result_writers import Layout, Record, Writer, writers_of
from mote_fast.cli.videos import Judged, Videos, videos_of, write_each
from mote_fast.errors import ConfigError, VideoError
from mote_fast.runtime.extras import required
from mote_fast.runtime.files import check_file, write_bytes
from mote_fast.runtime.text import visible
from mote_fast.timeline.timeline import Timeline
from mote_fast.timeline.timeline_files import COLUMNS, content_of
from mote_fast.timeline.windows import plan_windows

# Suffixes of files that one video has, and the form of them.
_OF_ONE = {".srt": "srt", ".vtt": "vtt", ".png": "png"}
_ACTIVITYNET = ".activitynet.json"


def run(arguments: argparse.Namespace) -> int:
    """Find the segments of each video; a bad one is reported and the others are processed. Returns 0, or 3."""
    labels = inputs.labels_of(arguments)
    videos = videos_of(arguments)
    found: list[Timeline] = []
    writers = _writers(arguments, videos, found)
    check_rejection(arguments)
    plan_windows(arguments.frames, arguments.fps, arguments.window, arguments.hop)
    model = inputs.model_of(arguments)
    labels = inputs.classes_of(model, arguments) if labels is None else labels
    classes = inputs.encode_labels(model, labels)
    background = rejection_of(model, arguments)

    def judged() -> Iterator[Judged]:
        for video in videos.present:
            with _bar(video) as progress:
                try:
                    timeline = model.timeline(
                        video,
                        labels,
                        fps=arguments.fps,
                        window=arguments.window,
                        hop=arguments.hop,
                        background=background,
                        smooth=arguments.smooth,
                        min_seconds=arguments.min_seconds,
                        several=arguments.several,
                        class_features=classes,
                        progress=progress,
                    )
                except VideoError as error:
                    yield Judged(None, error, 0)
                    continue
            found.append(timeline)
            yield Judged(timeline.to_dict(windows=arguments.scores), None, timeline.replaced_frames)

    facts = {"checkpoint": arguments.checkpoint or arguments.model, "caution": model.caution, "labels": list(labels)}
    for writer in writers:
        writer.begin(facts)
    return write_each(videos, judged(), "timeline", writers)


@contextlib.contextmanager
def _bar(video: str) -> Iterator[Any]:
    """Show the seconds of a video that are done, on a terminal."""
    with tqdm(unit="s", desc=visible(Path(video).name)[:40], delay=2, leave=False, disable=None) as bar:

        def progress(done: float, duration: float) -> None:
            bar.total = round(duration, 1)
            bar.update(round(done, 1) - bar.n)

        yield progress


def _writers(arguments: argparse.Namespace, videos: Videos, found: list[Timeline]) -> list[Writer]:
    """The writers of the options, before any work is done; some write the timelines themselves."""
    if not arguments.output:
        return writers_of(argparse.Namespace(form=arguments.form, output=None), _LAYOUT)
    writers: list[Writer] = []
    others = {suffix: partial(_TimelineFile, form=form, found=found) for suffix, form in _OF_ONE.items()}
    for name in arguments.output:
        if name.lower().endswith(_ACTIVITYNET):
            check_file(Path(name))
            writers.append(_TimelineFile(Path(name), "activitynet", found))
            continue
        if Path(name).suffix.lower() in _OF_ONE and len(videos.paths) > 1:
            raise ConfigError(f"--output {name}: such a file has one video; give one, or a suffix of .csv or .json")
        if name.lower().endswith(".png"):
            required("matplotlib.figure", "a plot", "train")
        writers += writers_of(argparse.Namespace(form=None, output=name), _LAYOUT, others)
    if arguments.form is not None:
        writers += writers_of(argparse.Namespace(form=arguments.form, output=None), _LAYOUT)
    return writers


class _TimelineFile:
    """Writes a file of the timelines found, in the end."""

    def __init__(self, path: Path, form: str, found: list[Timeline]) -> None:
        self._path, self._form, self._found = path, form, found

    def begin(self, facts: Mapping[str, Any], columns: Sequence[str] = ()) -> None:
        """See ``Writer``."""

    def add(self, record: Record) -> None:
        """See ``Writer``."""

    def finish(self, further: Mapping[str, Any]) -> None:
        """See ``Writer``; there is no file of a video that could not be read."""
        if self._found:
            write_bytes(self._path, content_of(self._found, self._form))
            if self._form == "activitynet":
                outputs.write(visible(f"{self._path}: {len(self._found)} videos"))


def _lines(record: Record) -> list[str]:
    if record["error"]:
        return []
    found = record["timeline"]
    lines = [f"{record['video']}: {found['duration']:.1f} s, windows of {found['window']:g} s; {found['rejection']}"]
    for each in found["segments"]:
        lines.append(f"  {each['start']:9.2f} - {each['end']:9.2f} s  {100 * each['score']:6.2f} %  {each['label']}")
    return lines if found["segments"] else [*lines, "  none of these"]


def _rows(record: Record) -> list[list[object]]:
    if record["error"]:
        return [[record["video"], "", "", "", "", "", record["error"]]]
    return [[record["video"], *each.values(), ""] for each in record["timeline"]["segments"]]


_LAYOUT = Layout(_lines, _rows, (*COLUMNS, "error"))
