"""``mote-fast eval --protocol localization``: how well timelines find the annotated segments of untrimmed videos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mote_fast.cli import inputs, options, outputs
from mote_fast.cli.rejection_options import check_rejection, rejection_of
from mote_fast.data.find_videos import find_videos
from mote_fast.errors import ConfigError, VideoError
from mote_fast.evaluation.localization import localization_of
from mote_fast.evaluation.localization_lists import read_true_segments
from mote_fast.runtime.files import make_folder, write_bytes
from mote_fast.runtime.json_text import to_json
from mote_fast.timeline.timeline import Timeline
from mote_fast.timeline.timeline_files import content_of

_FILES = ("result.json", "found.activitynet.json")


def run(arguments: argparse.Namespace) -> int:
    """Find the segments of each annotated video that is there. Returns 0, or 3 if any is missing or failed."""
    if arguments.config or len(arguments.list or ()) != 1 or not arguments.root:
        raise ConfigError("--protocol localization takes one --list, the annotations, and the videos' folder as --root")
    check_rejection(arguments)
    true = read_true_segments(arguments.list[0], arguments.subset)
    paths, _ = find_videos(arguments.root)
    places = {Path(path).stem.removeprefix("v_"): str(Path(arguments.root) / path) for path in paths}
    present = {name: places[name] for name in true if name in places}
    if not present:
        raise ConfigError(f"{arguments.root}: holds none of the {len(true)} annotated videos")
    if arguments.output is not None:
        make_folder(Path(arguments.output), names=_FILES)
    labels = sorted({each.label for segments in true.values() for each in segments})
    arguments.videos, arguments.time_limit = list(present.values()), options.TIME_LIMIT
    model = inputs.model_of(arguments)
    classes = inputs.encode_labels(model, labels)
    background = rejection_of(model, arguments)
    found: dict[str, Timeline] = {}
    errors = [f"{len(true) - len(present)} annotated videos are not there"] if len(present) < len(true) else []
    for name, path in tqdm(present.items(), unit="videos", disable=None):
        try:
            found[name] = model.timeline(
                path, labels, window=arguments.window, background=background, class_features=classes
            )
        except VideoError as error:
            errors.append(str(error))
    # A video that cannot be read has segments that nobody finds.
    judged = localization_of(
        {name: each.segments for name, each in found.items()}, {name: true[name] for name in present}
    )
    document: dict[str, Any] = {
        "checkpoint": arguments.checkpoint or arguments.model,
        "protocol": "localization",
        "subset": arguments.subset,
        "videos": len(found),
        "missing": len(true) - len(present),
        "classes": judged.classes,
        "map": {f"{overlap:g}": value for overlap, value in judged.precision.items()},
        "boundary_error": judged.boundary_error,
        "matched": judged.matched,
        "window": arguments.window,
        "background": arguments.background,
    }
    if arguments.output is not None:
        contents = (to_json(document, indent=2).encode() + b"\n", content_of(list(found.values()), "activitynet"))
        for name, content in zip(_FILES, contents, strict=True):
            write_bytes(Path(arguments.output) / name, content)
    lines = [f"mAP at IoU {overlap:g}: {value:.2f} %" for overlap, value in judged.precision.items()]
    lines.append(f"boundary error: {judged.boundary_error:.2f} s, of the {judged.matched:.1f} % that are matched")
    outputs.show(arguments, document, lines)
    return outputs.report_failed(errors)
