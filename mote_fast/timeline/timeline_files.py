"""Timelines as files: JSON, CSV, subtitles, a picture, and the JSON of ActivityNet's and THUMOS's evaluations."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mote_fast.errors import ConfigError
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.text import printable, visible
from mote_fast.timeline.timeline_values import TimelineValues

# Also the form that a path's suffix asks for; ActivityNet's has the suffix of JSON.
FORMS = ("json", "csv", "srt", "vtt", "png", "activitynet")

COLUMNS = ("video", "start", "end", "label", "index", "score")


def form_of(path: str | Path, form: str | None = None) -> str:
    """Return the form of a file, by its suffix unless one is given.

    Raises:
        ConfigError: there is no such form, or the suffix asks for none.
    """
    chosen = Path(path).suffix.removeprefix(".").lower() if form is None else form
    if chosen not in FORMS:
        raise ConfigError(f"{path}: a timeline is written as {', '.join(FORMS)}; give such a suffix, or the form")
    return chosen


def content_of(timelines: Sequence[TimelineValues], form: str) -> bytes:
    """Return the content of a file of timelines, which subtitles and pictures have one of.

    Raises:
        ConfigError: there are several, and the form is of one.
        BackendError: matplotlib is missing, which pictures need.
    """
    if form == "png":
        from mote_fast.timeline.timeline_plot import png_of

        return png_of(_only(timelines, form))
    writers: dict[str, Callable[[], str]] = {
        "json": lambda: _json([each.to_dict() for each in timelines]),
        "csv": lambda: _csv(timelines),
        "srt": lambda: _srt(_only(timelines, form)),
        "vtt": lambda: _vtt(_only(timelines, form)),
        "activitynet": lambda: _json(activitynet(timelines)),
    }
    # A file name may hold bytes that are not UTF-8.
    return printable(writers[form]()).encode()


def activitynet(timelines: Sequence[TimelineValues]) -> dict[str, Any]:
    """Return the segments in the form that the evaluations of ActivityNet and THUMOS read, by the names of the videos.

    Raises:
        ConfigError: two videos have one name.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    for each in timelines:
        name = Path(each.video).stem
        if name in results:
            raise ConfigError(f"{each.video}: another video is called {name}; write its results to a file of its own")
        results[name] = [
            {"label": segment.label, "score": segment.score, "segment": [segment.start, segment.end]}
            for segment in each.segments
        ]
    return {"version": "VERSION 1.3", "results": results, "external_data": {}}


def clock_text(seconds: float, point: str) -> str:
    """Return a time as subtitles have it: hours, minutes, seconds and milliseconds."""
    thousandths = round(1000 * seconds)
    whole, rest = divmod(thousandths, 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{rest:03}"


def _only(timelines: Sequence[TimelineValues], form: str) -> TimelineValues:
    if len(timelines) != 1:
        raise ConfigError(f"a file of the form {form} has one video, and there are {len(timelines)}")
    return timelines[0]


def _json(document: list[dict[str, Any]] | dict[str, Any]) -> str:
    return to_json(document[0] if isinstance(document, list) and len(document) == 1 else document, indent=2) + "\n"


def _csv(timelines: Sequence[TimelineValues]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in timelines:
        for segment in each.segments:
            writer.writerow((each.video, *segment.to_dict().values()))
    return text.getvalue()


def _srt(timeline: TimelineValues) -> str:
    cues = [
        f"{number}\n{clock_text(each.start, ',')} --> {clock_text(each.end, ',')}\n{_cue(each.label)}\n"
        for number, each in enumerate(timeline.segments, 1)
    ]
    return "\n".join(cues)


def _vtt(timeline: TimelineValues) -> str:
    cues = [
        f"{clock_text(each.start, '.')} --> {clock_text(each.end, '.')}\n{_escaped(_cue(each.label))}\n"
        for each in timeline.segments
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _cue(label: str) -> str:
    """A label on one line, in which nothing is taken for the times of another cue."""
    return re.sub(r"--+>", "→", visible(label))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
