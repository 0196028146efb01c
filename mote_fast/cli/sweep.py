"""``mote-fast sweep``: close-set against zero-shot accuracy over a setting of a trained model.

``interpolate`` mixes the fine-tuned image tower with the original CLIP's at several shares. Each video is decoded once,
and class names are encoded once; the image tower and the head run at each share. Under torchrun the processes divide
the videos.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mote_fast.analysis.expert_accuracy import accuracy_by
from mote_fast.analysis.interpolation import (
    InterpolatedTowers,
    SharePoint,
    check_shares,
    load_with_original,
    predict_shares,
    share_csv,
)
from mote_fast.analysis.plots.draw_interpolation import draw_interpolation
from mote_fast.cli import inputs, outputs
from mote_fast.cli.eval import class_features_on_all, processes
from mote_fast.data.loading.order import Replica
from mote_fast.errors import ConfigError
from mote_fast.evaluation.predict import Predictions
from mote_fast.evaluation.protocol_names import ProtocolName
from mote_fast.evaluation.splits import Split
from mote_fast.model.dtypes import FLOATS
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.runtime.files import make_folder, write_bytes
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.text import printable

NAME = "interpolate"
RESULT_FILE = f"{NAME}.json"
SHARES = tuple(at / 10 for at in range(11))


def run(arguments: argparse.Namespace) -> int:
    """Evaluate at each share; the first process writes and prints. Returns 0, or 3 if any video failed."""
    shares = sorted(arguments.shares or SHARES)
    check_shares(shares)
    if "frames" in getattr(arguments, "given", ()) and Path(arguments.checkpoint).is_dir():
        raise ConfigError(f"--frames does not apply to {arguments.checkpoint}: a model folder records its own")
    with processes(arguments) as world:
        arguments.device = str(world.device)
        close, zero = inputs.split_of(arguments, "close_set"), inputs.split_of(arguments, "zero_shot")
        if world.leads:
            outputs.prepare_drawing(arguments, NAME)
            make_folder(Path(arguments.output), names=(RESULT_FILE,))
        prompts = inputs.prompts_of(arguments)
        model, original = load_with_original(arguments.checkpoint, arguments.clip, arguments.frames, arguments.device)
        model.prompts = prompts or model.prompts
        model.feature_cache = None if arguments.no_cache else model.feature_cache
        towers = InterpolatedTowers(model, original, shares)
        # Held by the towers now.
        del original
        model.to(dtype=FLOATS[arguments.dtype])
        on_close = _predict(arguments, towers, close, "closeset", world)
        on_zero = _predict(arguments, towers, zero, "zeroshot", world)
        points = [
            SharePoint(share, *(accuracy_by(found, arguments.score) for found in pair))
            for share, *pair in zip(shares, on_close, on_zero, strict=True)
        ]
        failures = [*on_close[0].failures, *on_zero[0].failures]
        if world.leads:
            _write(arguments, points, close, zero)
            outputs.report_unread(failures)
        # torchrun stops the others when one ends with another status than 0, so all wait until the first has written.
        world.wait()
    return outputs.SOME_FAILED if failures else 0


def _predict(
    arguments: argparse.Namespace, towers: InterpolatedTowers, split: Split, protocol: ProtocolName, world: ProcessGroup
) -> list[Predictions]:
    classes = class_features_on_all(towers.model, split.class_names, world)
    views = inputs.views_of(arguments, protocol)
    replica = Replica(world.rank, world.size)
    with inputs.open_loader(arguments, towers.model, split.items, views, replica=replica, title=split.name) as (
        loader,
        progress,
    ):
        return predict_shares(towers, loader, classes, progress=progress)


def _write(arguments: argparse.Namespace, points: Sequence[SharePoint], close: Split, zero: Split) -> None:
    """Write the table, the plot and, last, the document; print the numbers."""
    figure = draw_interpolation(points, printable(close.name), printable(zero.name))
    files = [*outputs.write_drawing(arguments, NAME, figure, share_csv(points))]
    result = Path(arguments.output) / RESULT_FILE
    document = {
        "checkpoint": arguments.checkpoint,
        "clip": arguments.clip,
        "close_set": close.name,
        "zero_shot": zero.name,
        "score": arguments.score,
        "dtype": arguments.dtype,
        "shares": [_entry(point) for point in points],
        "files": [*files, str(result)],
    }
    write_bytes(result, (to_json(document, indent=2) + "\n").encode())
    lines = [f"{'share':>7}{'close-set':>11}{'zero-shot':>11}{'trade-off':>11}   top-1, %"]
    lines += [f"{p.share:7.3g}{p.close_set.top1:11.2f}{p.zero_shot.top1:11.2f}{p.score:11.2f}" for p in points]
    outputs.show(arguments, document, [*lines, f"wrote {', '.join(document['files'])}"])


def _entry(point: SharePoint) -> dict[str, Any]:
    return {
        "share": point.share,
        "close_set": point.close_set._asdict(),
        "zero_shot": point.zero_shot._asdict(),
        "trade_off": point.score,
    }
