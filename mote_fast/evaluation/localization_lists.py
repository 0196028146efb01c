"""True segments of untrimmed videos: the annotations of THUMOS14, and those of ActivityNet in its JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mote_fast.data.text_tables import read_json, read_lines
from mote_fast.errors import ListError, quoted

# Of THUMOS14's files, one a class: its name, and the part of the data set.
_THUMOS_FILE = re.compile(r"(\w+)_(val|test)\.txt")
# Times that show something that may be an action or not; the evaluation of THUMOS14 leaves them out too.
_AMBIGUOUS = "Ambiguous"


class TrueSegment(NamedTuple):
    """A part of a video that shows a class, in seconds."""

    start: float
    end: float
    label: str


def read_true_segments(source: str | Path, subset: str) -> dict[str, list[TrueSegment]]:
    """Read the true segments of each video, by the name of its file without extension and without "v_".

    Args:
        source: the folder of THUMOS14's files ("BaseballPitch_test.txt", lines "video_test_0000324 179.2 185.4"), or
            ActivityNet's JSON, which is also a common form of THUMOS14.
        subset: the part of the data set: "test" or "val" of THUMOS14, "validation" or "training" of ActivityNet.

    Raises:
        ListError: the annotations are missing or malformed, or have no segments of this part.
    """
    found: dict[str, list[TrueSegment]] = {}
    for name, segment in _thumos(Path(source), subset) if Path(source).is_dir() else _activitynet(source, subset):
        found.setdefault(name, []).append(segment)
    if not found:
        raise ListError(f"{source}: has no segments of the subset {subset!r}")
    return found


def _thumos(folder: Path, subset: str) -> Iterator[tuple[str, TrueSegment]]:
    for path in sorted(folder.iterdir()):
        match = _THUMOS_FILE.fullmatch(path.name)
        if match is None or match[2] != subset or match[1] == _AMBIGUOUS:
            continue
        # "BaseballPitch" is read as two words.
        label = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", match[1]).lower()
        for place, line in read_lines(path):
            parts = line.split()
            if len(parts) != 3:
                raise ListError(f"{place}: must be a video, a start and an end, got {quoted(line)}")
            yield parts[0], _segment(parts[1], parts[2], label, place)


def _activitynet(source: str | Path, subset: str) -> Iterator[tuple[str, TrueSegment]]:
    content = read_json(source)
    videos = content.get("database") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise ListError(f"{source}: must be an object with a 'database' of videos")
    for name, entry in videos.items():
        where = f"{source}: {quoted(name)}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("annotations"), list):
            raise ListError(f"{where} must have a list of annotations")
        if str(entry.get("subset", "")).lower() != subset:
            continue
        for each in entry["annotations"]:
            segment = each.get("segment") if isinstance(each, Mapping) else None
            label = each.get("label") if isinstance(each, Mapping) else None
            if not isinstance(segment, list) or len(segment) != 2 or not isinstance(label, str) or not label.strip():
                raise ListError(f"{where}: an annotation must have a segment and a label, got {quoted(each)}")
            yield name.removeprefix("v_"), _segment(segment[0], segment[1], label, where)


def _segment(start: Any, end: Any, label: str, where: str) -> TrueSegment:
    try:
        first, last = float(start), float(end)
    except (TypeError, ValueError) as error:
        raise ListError(f"{where}: a start and an end must be seconds, got {quoted((start, end))}") from error
    if not (math.isfinite(first) and math.isfinite(last)):
        raise ListError(f"{where}: a start and an end must be finite, got {quoted((start, end))}")
    # Some annotations end before they begin.
    return TrueSegment(min(first, last), max(first, last), label)
