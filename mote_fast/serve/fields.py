"""The fields of requests: what OpenAPI says of them, and their values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mote_fast.errors import quoted
from mote_fast.model.label_input import labels_of
from mote_fast.model.video_model import VideoModel
from mote_fast.serve.limits import MAX_VIEWS, RefusedError
from mote_fast.serve.upload import VIDEO, Form
from mote_fast.timeline.rejection import Rejection

_FIELDS: dict[str, dict[str, Any]] = {
    VIDEO: {"type": "string", "format": "binary", "description": "the file"},
    "labels": {
        "type": "array",
        "items": {"type": "string"},
        "description": "class names, one a field or a line; without them those that the server was started with",
    },
    "views": {"type": "string", "description": "clips x crops, such as 1x1, 3x1, 4x3"},
    "topk": {"type": "integer", "minimum": 1, "description": "how many results"},
    "words": {"type": "string", "description": "what the videos show; in place of a video"},
    "reject": {
        "type": "string",
        "description": "which videos have no label: auto, a least level, or words, one a line; without it all have one",
    },
    "background": {"type": "string", "description": "which times have no label, as reject"},
    "window": {"type": "number", "minimum": 0.1, "maximum": 600, "description": "seconds that a window spans"},
    "several": {"type": "boolean", "description": "labels may overlap; otherwise there is one at a time"},
}


def form_schema(fields: Sequence[str]) -> dict[str, Any]:
    """Return what OpenAPI says of a request with these fields."""
    schema = {"type": "object", "properties": {name: _FIELDS[name] for name in fields}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def video_in(form: Form) -> str:
    """Return the path of the video."""
    if form.video_name is None:
        raise RefusedError(400, "no video: give the field video, a file")
    return form.path


def labels_in(form: Form, default: Sequence[str] | None, most: int) -> list[str]:
    """Return the labels; the default, however many, where there are none."""
    given = _lines(form.fields.get("labels", ()))
    if not given and default is None:
        raise RefusedError(400, "no labels: give the field labels, one label a line or a field")
    if len(given) > most:
        raise RefusedError(413, f"{len(given)} labels are over the limit of {most}")
    return labels_of(given or default)


def views_in(form: Form, model: VideoModel, default: str) -> str:
    """Return the views, which the model takes."""
    views = form.one("views", default)
    parsed = model.check_views(views)
    if parsed.clips * parsed.crops > MAX_VIEWS:
        raise RefusedError(413, f"views {views} are over the limit of {MAX_VIEWS}")
    return views


def count_in(form: Form, name: str, default: int) -> int:
    """Return a whole number."""
    text = form.one(name, str(default))
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 7 and int(text) > 0):
        raise RefusedError(400, f"{name} must be a whole number from 1 to 999999, got {quoted(text)}")
    return int(text)


def window_in(form: Form) -> float | None:
    """Return the seconds of a window; None where the request leaves them to the library."""
    text = form.one("window", "")
    value = _number(text)
    if text and not 0.1 <= value <= 600:
        raise RefusedError(400, f"window must be a number of seconds from 0.1 to 600, got {quoted(text)}")
    return value if text else None


def flag_in(form: Form, name: str) -> bool:
    """Return a yes or no."""
    text = form.one(name, "false")
    if text not in ("true", "false"):
        raise RefusedError(400, f"{name} must be true or false, got {quoted(text)}")
    return text == "true"


def rejection_in(form: Form, name: str, most: int) -> Rejection:
    """Return what has no label, see ``VideoClassifier.classify``; words as labels."""
    lines = _lines(form.fields.get(name, ()))
    if len(lines) > most:
        raise RefusedError(413, f"{name}: {len(lines)} words are over the limit of {most}")
    if len(lines) == 1:
        return "auto" if lines[0] == "auto" else lines if math.isnan(_number(lines[0])) else _number(lines[0])
    return labels_of(lines) if lines else None


def _lines(fields: Sequence[str]) -> list[str]:
    return [line.strip() for field in fields for line in field.splitlines() if line.strip()]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
