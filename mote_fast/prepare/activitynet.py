"""ActivityNet 1.3, trimmed to its annotated segments, from ``activity_net.v1-3.min.json``: a segment is a video."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mote_fast.data.items import VideoItem
from mote_fast.data.text_tables import read_json
from mote_fast.errors import ListError, quoted
from mote_fast.prepare.annotations import find_file
from mote_fast.prepare.cut import Cut, cut_clips
from mote_fast.prepare.encoding import Span
from mote_fast.prepare.lists import LABELS_FILE, DataSet, VideoList
from mote_fast.prepare.prepare_settings import Encoding
from mote_fast.prepare.tree import VideoTree

CLASSES = 200

_PATTERN = "*activity_net*.json"
# What a folder's name does without: blanks, and above all dots and slashes.
_NOT_IN_NAMES = re.compile(r"[^\w()'&,-]+")
_SUBSETS = {"training": "train", "validation": "val", "testing": "test"}


@dataclass(frozen=True)
class Segment:
    """A part of a video that shows one class.

    Attributes:
        video: the video's identifier, without the "v_" of its file name.
        label: name of the class.
        span: its times.
        split: "train", "val" or "test".
    """

    video: str
    label: str
    span: Span
    split: str

    @property
    def stem(self) -> str:
        """The clip's name without extension: identifier, first and last millisecond."""
        start, end = (round(1000 * second) for second in self.span)
        return f"v_{self.video}_{start:07d}_{end:07d}"

    @property
    def clip(self) -> str:
        """The clip's path below the root of the clips, in a folder for each class."""
        return f"{_NOT_IN_NAMES.sub('_', self.label)}/{self.stem}.mp4"


def read_segments(annotations: Sequence[Path]) -> tuple[list[Segment], tuple[str, ...]]:
    """Read the segments in the order of the file, each once; and notes on what was left out.

    Raises:
        ListError: the file is missing, malformed, or has no segments.
    """
    source = find_file(annotations, _PATTERN)
    content = read_json(source)
    videos = content.get("database") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise ListError(f"{source}: must be an object with a 'database' of videos")
    found = [segment for video, entry in videos.items() for segment in _segments_of(video, entry, str(source))]
    whole = [segment for segment in found if segment.span.start < segment.span.end]
    distinct = list({segment.clip: segment for segment in whole}.values())
    if not distinct:
        raise ListError(f"{source}: has no annotated segments")
    bare = sum(not entry["annotations"] for entry in videos.values())
    notes = (
        (bare, "videos have no annotations (those of the test set are held out), so they are in no list."),
        (len(found) - len(whole), "segments end before they begin, so they are in no list."),
        (len(whole) - len(distinct), "segments are annotated twice, and listed once."),
    )
    return distinct, tuple(f"{count} {what}" for count, what in notes if count)


def read_activitynet(annotations: Sequence[Path], root: Path) -> DataSet:
    """Read the training and validation segments as clips below ``root``; classes are numbered by name.

    A clip is searched by its name in any folder and with any video extension; a missing one is listed where
    ``cut_activitynet`` would write it.

    Raises:
        ListError: see ``read_segments``; or ``root`` holds no video.
    """
    segments, notes = read_segments(annotations)
    classes = sorted({segment.label for segment in segments})
    indices = {label: index for index, label in enumerate(classes)}
    tree = VideoTree(root)
    items: dict[str, list[VideoItem]] = {}
    for segment in segments:
        path = tree.find(segment.stem, segment.label) or segment.clip
        items.setdefault(segment.split, []).append(VideoItem(path, indices[segment.label]))
    lists = (VideoList(f"{split}list.txt", tuple(items[split])) for split in _SUBSETS.values() if split in items)
    if len(classes) != CLASSES:
        notes = (*notes, f"The segments are of {len(classes)} classes, the whole data set has {CLASSES}.")
    return DataSet("activitynet", tuple(lists), {LABELS_FILE: tuple(classes)}, notes=notes)


def cut_activitynet(
    segments: Sequence[Segment], videos: Path, root: Path, encoding: Encoding, *, workers: int, time_limit: float
) -> tuple[str, ...]:
    """Cut the segments out of the videos below ``videos``, named ``v_ID`` or ``ID``, into clips below ``root``.

    Returns: notes on the clips that are missing. Otherwise as ``cut_clips``.
    """
    tree = VideoTree(videos)
    cuts: list[Cut] = []
    for segment in segments:
        path = tree.find(f"v_{segment.video}") or tree.find(segment.video)
        if path is not None:
            cuts.append(Cut(path, segment.clip, segment.span))
    done = cut_clips(cuts, videos, root, encoding, workers=workers, time_limit=time_limit)
    notes = (
        (len(segments) - len(cuts), f"clips have no video in {videos}."),
        (len(done.failures), f"clips could not be cut; {root}/faults.jsonl says why."),
    )
    return tuple(f"{count} {what}" for count, what in notes if count)


def _segments_of(video: str, entry: Any, source: str) -> Iterator[Segment]:
    where = f"{source}, video {quoted(video)}"
    if not isinstance(entry, dict) or not isinstance(entry.get("annotations"), list):
        raise ListError(f"{where}: needs a list of 'annotations'")
    split = _SUBSETS.get(str(entry.get("subset")))
    if split is None:
        raise ListError(
            f"{where}: the subset must be one of {', '.join(_SUBSETS)}, found {quoted(entry.get('subset'))}"
        )
    if not re.fullmatch(r"[\w.-]{1,100}", video):
        raise ListError(f"{where}: is not an identifier of letters, digits, '-', '_' and '.'")
    for number, annotation in enumerate(entry["annotations"], 1):
        label, times = (annotation.get(key) if isinstance(annotation, dict) else None for key in ("label", "segment"))
        if not isinstance(label, str) or not label.strip():
            raise ListError(f"{where}, annotation {number}: needs a 'label'")
        if not isinstance(times, list) or len(times) != 2 or not all(map(_is_second, times)):
            raise ListError(
                f"{where}, annotation {number}: needs a 'segment' of two times in seconds, found {quoted(times)}"
            )
        yield Segment(video, label.strip(), Span(float(times[0]), float(times[1])), split)


def _is_second(value: Any) -> bool:
    # A day: longer than any video, and far below what a file's name and timestamps hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 86400
