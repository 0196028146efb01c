"""``mote-fast watch``: what a camera or a stream shows, window by window."""

from __future__ import annotations

import argparse
import math

from mote_fast.cli import inputs, outputs
from mote_fast.cli.rejection_options import check_rejection, rejection_of
from mote_fast.data.live.live_address import live_address
from mote_fast.data.live.live_source import Interruption
from mote_fast.errors import ConfigError, UndecodableVideoError
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.text import visible
from mote_fast.timeline.live_window import LiveWindow
from mote_fast.timeline.windows import plan_windows

# Told in place of a label.
_NONE = "none of these"


def run(arguments: argparse.Namespace) -> int:
    """Print windows until the source ends or is given up. Returns 0, or 3 if it was lost."""
    source = int(arguments.source) if arguments.source.isdecimal() else arguments.source
    live_address(source)
    labels = inputs.labels_of(arguments)
    if isinstance(check_rejection(arguments), tuple):
        raise ConfigError("--background must be auto or a level such as 0.4; START-END is for a whole video")
    plan_windows(arguments.frames, arguments.fps, arguments.window, arguments.hop)
    model = inputs.model_of(arguments)
    labels = inputs.classes_of(model, arguments) if labels is None else labels
    classes = inputs.encode_labels(model, labels)
    background = rejection_of(model, arguments)
    assert not isinstance(background, tuple)
    results = model.stream(
        source,
        labels,
        fps=arguments.fps,
        window=arguments.window,
        hop=arguments.hop,
        background=background,
        retry_seconds=math.inf if arguments.retry is None else arguments.retry,
        class_features=classes,
    )
    shown: str | None = None
    is_open = False
    try:
        for found in results:
            is_open = True
            if arguments.jsonl:
                outputs.write(to_json(_record(found)))
            elif isinstance(found, Interruption):
                outputs.write(visible(f"{found.time:9.1f} s  interrupted: {found.reason}"))
                shown = None
            elif (label := found.label or _NONE) != shown:
                outputs.write(visible(_line(found, label)))
                shown = label
            if isinstance(found, LiveWindow) and arguments.seconds is not None and found.end >= arguments.seconds:
                break
    except UndecodableVideoError as error:
        if not is_open:
            raise
        return outputs.report_failed([str(error)])
    finally:
        results.close()
    return 0


def _record(found: LiveWindow | Interruption) -> dict[str, object]:
    if isinstance(found, Interruption):
        return {"interrupted": found.reason, "time": found.time}
    return found.to_dict()


def _line(found: LiveWindow, label: str) -> str:
    late = f", {found.delay:.1f} s late" if found.delay >= 1 else ""
    dropped = f", {found.dropped} frames dropped" if found.dropped else ""
    return f"{found.end:9.1f} s  {100 * found.score:6.2f} %  {label}{late}{dropped}"
