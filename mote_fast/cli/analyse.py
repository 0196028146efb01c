"""``mote-fast analyse``: what each expert of a model does, and plots of it."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mote_fast.analysis.attention_maps import attention_csv, attention_maps
from mote_fast.analysis.class_accuracy import ClassAccuracy, class_accuracies, class_accuracy_csv, most_divided
from mote_fast.analysis.expert_accuracy import ExpertAccuracy, expert_accuracies, expert_accuracy_csv
from mote_fast.analysis.plots.canvas import check_plots, to_png
from mote_fast.analysis.plots.draw_attention import draw_attention
from mote_fast.analysis.plots.draw_classes import draw_classes
from mote_fast.analysis.plots.draw_experts import draw_experts
from mote_fast.analysis.plots.draw_similarity import draw_similarity
from mote_fast.analysis.plots.draw_tradeoff import draw_trade_off
from mote_fast.analysis.predictions import predict_variants
from mote_fast.analysis.similarity import expert_similarity, similarity_csv
from mote_fast.analysis.tradeoff_points import TradeOffPoint, check_comparable, trade_off_csv, trade_off_point
from mote_fast.analysis.variants import MERGED, Variant, clip_mean, expert_variants
from mote_fast.cli.analyse_inputs import add_loading_options, loader_of, recipe_of, report, some_videos
from mote_fast.cli.classify import encode_labels
from mote_fast.cli.options import add_model_options, is_untrained, whole_model
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.items import UNLABELLED, VideoItem
from mote_fast.data.plan import ONE_VIEW
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError
from mote_fast.evaluation.accuracy import FULL_CLASS, RUNNING
from mote_fast.evaluation.combine import read_result
from mote_fast.evaluation.evaluate import DEFAULT_VIEWS, ProtocolName
from mote_fast.evaluation.predict import Predictions
from mote_fast.evaluation.report import ALL, READABLE, to_json
from mote_fast.evaluation.splits import Split, read_split
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.files import make_folder, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_command(commands: Any) -> None:
    """Register the command and its analyses."""
    parser = commands.add_parser("analyse", help="what each expert does: numbers and plots", description=__doc__)
    analyses = parser.add_subparsers(dest="analysis", required=True, metavar="ANALYSIS")
    _add_experts(analyses)
    _add_classes(analyses)
    _add_similarity(analyses)
    _add_attention(analyses)
    _add_tradeoff(analyses)


def run_experts(arguments: argparse.Namespace) -> int:
    """Accuracy of every variant on a close-set and a zero-shot list. Returns 0, or 2 if a video failed."""
    check_plots()
    close = _split(arguments, "close_set")
    zero = _split(arguments, "zero_shot")
    folder = _folder(arguments)
    model = _judging_model(arguments)
    variants = [*expert_variants(model.head), clip_mean(model.head)]
    on_close = _predict(arguments, model, variants, close, "closeset")
    on_zero = _predict(arguments, model, variants, zero, "zeroshot")
    rows = expert_accuracies(on_close, on_zero, arguments.score)
    figure = draw_experts(rows, close.name, zero.name)
    files = _write(folder, "experts", figure, expert_accuracy_csv(rows))
    failures = [*on_close[MERGED].failures, *on_zero[MERGED].failures]
    document = {
        "close_set": close.name,
        "zero_shot": zero.name,
        "score": arguments.score,
        "variants": [_accuracy_entry(row) for row in rows],
    }
    lines = [f"{'close-set':>10}{'zero-shot':>11}   top-1, %"]
    lines += [f"{row.close_set.top1:10.2f}{row.zero_shot.top1:11.2f}   {row.variant}" for row in rows]
    _show(arguments, document, lines, files)
    return report(failures, is_untrained(arguments))


def run_classes(arguments: argparse.Namespace) -> int:
    """Accuracy of the merged model and of each expert on every class. Returns 0, or 2 if a video failed."""
    check_plots()
    if arguments.shown < 1:
        raise ConfigError(f"--shown must be at least 1, got {arguments.shown}")
    split = read_split(arguments.list, arguments.labels_file, arguments.root)
    folder = _folder(arguments)
    model = _judging_model(arguments)
    judged = _predict(arguments, model, expert_variants(model.head), split, "zeroshot")
    failures = judged[MERGED].failures
    if len(failures) == len(split.items):
        raise ConfigError(f"{split.name}: none of its videos could be read; the first: {failures[0].reason}")
    rows = class_accuracies(judged, split.class_names, arguments.score)
    shown = most_divided(rows, arguments.shown)
    title = f"{split.name}: the {len(shown)} of {len(rows)} classes on which the experts differ most"
    files = _write(folder, "classes", draw_classes(shown, title), class_accuracy_csv(rows))
    document = {
        "list": split.name,
        "score": arguments.score,
        "classes": [_class_entry(row) for row in rows],
        "shown": [row.label for row in shown],
    }
    lines = [" ".join(f"{name:>9}" for name in rows[0].top1) + "   top-1, %"]
    lines += [" ".join(f"{value:9.2f}" for value in row.top1.values()) + f"   {row.name}" for row in shown]
    _show(arguments, document, lines, files)
    return report(failures, is_untrained(arguments))


def run_similarity(arguments: argparse.Namespace) -> int:
    """Affinity of the features of the merged model and of each expert. Returns 0, or 2 if a video failed."""
    check_plots()
    items = some_videos(arguments.list, arguments.root, arguments.count)
    folder = _folder(arguments)
    model = whole_model(arguments)
    variants = expert_variants(model.head)
    views = _views(arguments, "fewshot")
    with (
        contextlib.closing(loader_of(arguments, model, items, views)) as loader,
        tqdm(total=len(items), unit="videos", disable=None) as bar,
    ):
        found = expert_similarity(model, variants, loader, progress=bar.update)
    files = _write(folder, "similarity", draw_similarity(found), similarity_csv(found))
    document = {
        "variants": list(found.variants),
        "videos": found.videos,
        "output": found.output.tolist(),
        "temporal": found.temporal.tolist(),
    }
    lines = [" ".join(f"{name:>9}" for name in found.variants) + "   output features"]
    lines += [
        " ".join(f"{value:9.4f}" for value in line) + f"   {name}"
        for name, line in zip(found.variants, found.output.tolist(), strict=True)
    ]
    _show(arguments, document, lines, files)
    return report(found.failures, is_untrained(arguments))


def run_attention(arguments: argparse.Namespace) -> int:
    """Attention maps of one video's frames. Returns 0."""
    check_plots()
    folder = _folder(arguments)
    model = whole_model(arguments)
    variants = [*expert_variants(model.head), clip_mean(model.head)]
    dataset = VideoDataset(
        [VideoItem(arguments.video, UNLABELLED)], recipe_of(model, ONE_VIEW), decode_backend=arguments.decode
    )
    (frames,) = dataset.load(0).pixels
    with tqdm(total=len(frames), unit="frames", disable=None, delay=2) as bar:
        found = attention_maps(model.clip, variants, frames, progress=bar.update)
    figure = draw_attention(found, f"{Path(arguments.video).name}: cosine of output feature and patches")
    files = _write(folder, "attention", figure, attention_csv(found))
    ranges = {name: (maps.min().item(), maps.max().item()) for name, maps in found.maps.items()}
    document = {
        "video": arguments.video,
        "variants": [{"variant": name, "least": least, "most": most} for name, (least, most) in ranges.items()],
    }
    lines = [f"{least:7.4f} to {most:7.4f}   {name}" for name, (least, most) in ranges.items()]
    _show(arguments, document, lines, files)
    return report([], is_untrained(arguments))


def run_tradeoff(arguments: argparse.Namespace) -> int:
    """Trade-off of several models from the results of eval. Returns 0."""
    check_plots()
    points = [_point(model, arguments.score, arguments.videos) for model in arguments.models]
    check_comparable(points)
    files = _write(_folder(arguments), "tradeoff", draw_trade_off(points), trade_off_csv(points))
    lines = [f"{points[0].data_set:>9} {'HM_ZS':>8}{'trade-off':>11}  layers"]
    lines += [f"{p.close_set:9.2f}{p.hm_zs:9.2f}{p.score:11.2f}{p.layers:8}  {p.series}" for p in points]
    _show(arguments, {"models": [asdict(point) for point in points]}, lines, files)
    return 0


def _add_experts(analyses: Any) -> None:
    parser = _add_analysis(analyses, "experts", "close-set and zero-shot accuracy of each expert", run_experts)
    for kind in ("close-set", "zero-shot"):
        group = parser.add_argument_group(kind)
        group.add_argument(f"--{kind}", required=True, metavar="LIST", help=_LIST_HELP)
        group.add_argument(f"--{kind}-labels-file", metavar="FILE", help="its class names")
        group.add_argument(f"--{kind}-root", default="", metavar="FOLDER", help="what its paths are relative to")
    _add_judging_options(parser, f"{DEFAULT_VIEWS['closeset']} and {DEFAULT_VIEWS['zeroshot']}")


def _add_classes(analyses: Any) -> None:
    parser = _add_analysis(analyses, "classes", "accuracy of each expert on every class", run_classes)
    _add_list(parser)
    parser.add_argument("--labels-file", metavar="FILE", help="class names of the list")
    parser.add_argument("--shown", type=int, default=20, help="classes in the plot and the text (default 20)")
    _add_judging_options(parser, DEFAULT_VIEWS["zeroshot"])


def _add_similarity(analyses: Any) -> None:
    parser = _add_analysis(analyses, "similarity", "how alike the experts' features are", run_similarity)
    _add_list(parser)
    parser.add_argument("--count", type=int, default=100, metavar="N", help="videos of the list (default 100)")
    add_loading_options(parser, DEFAULT_VIEWS["fewshot"])
    add_model_options(parser)


def _add_attention(analyses: Any) -> None:
    parser = _add_analysis(analyses, "attention", "where in the frames each expert looks", run_attention)
    parser.add_argument("video", metavar="VIDEO", help="a video file")
    add_model_options(parser)


def _add_tradeoff(analyses: Any) -> None:
    parser = _add_analysis(analyses, "tradeoff", "models between close-set and zero-shot accuracy", run_tradeoff)
    parser.add_argument(
        "--model",
        nargs="+",
        action="append",
        required=True,
        dest="models",
        metavar=("SERIES LAYERS RESULT", "RESULT"),
        help="one model: its line in the plot, its temporal layers, and its result.json files or their folders "
        "(one close-set, the others zero-shot); repeat for each model",
    )
    parser.add_argument("--score", choices=(RUNNING, FULL_CLASS), default=RUNNING, help="default %(default)s")
    parser.add_argument(
        "--videos", choices=(READABLE, ALL), default=READABLE, help="which videos count (default %(default)s)"
    )


_LIST_HELP = "list of videos with labels, or a folder with a sub-folder for each class"


def _add_analysis(analyses: Any, name: str, purpose: str, run: Any) -> argparse.ArgumentParser:
    parser = analyses.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    parser.add_argument("--output", required=True, metavar="FOLDER", help=f"write {name}.png and {name}.csv there")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.set_defaults(run=run)
    return parser


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", required=True, metavar="LIST", help=_LIST_HELP)
    parser.add_argument("--root", default="", metavar="FOLDER", help="what the list's paths are relative to")


def _add_judging_options(parser: argparse.ArgumentParser, views: str) -> None:
    parser.add_argument("--score", choices=(RUNNING, FULL_CLASS), default=RUNNING, help="default %(default)s")
    parser.add_argument("--no-modulation", action="store_true", help="use the temporal features in full")
    parser.add_argument("--no-cache", action="store_true", help="neither read nor write class features on disk")
    add_loading_options(parser, views)
    add_model_options(parser)


def _judging_model(arguments: argparse.Namespace) -> VideoClassifier:
    model = whole_model(arguments)
    if arguments.no_modulation:
        model.head.set_inference(modulation=False)
    if arguments.no_cache:
        model.feature_cache = None
    return model


def _predict(
    arguments: argparse.Namespace,
    model: VideoClassifier,
    variants: Sequence[Variant],
    split: Split,
    protocol: ProtocolName,
) -> Mapping[str, Predictions]:
    classes = encode_labels(model, list(split.class_names))
    with (
        contextlib.closing(loader_of(arguments, model, split.items, _views(arguments, protocol))) as loader,
        tqdm(total=len(split.items), unit="videos", desc=split.name, disable=None) as bar,
    ):
        return predict_variants(model, variants, loader, classes, progress=bar.update)


def _views(arguments: argparse.Namespace, protocol: ProtocolName) -> Views:
    return Views.parse(arguments.views or DEFAULT_VIEWS[protocol])


def _split(arguments: argparse.Namespace, kind: str) -> Split:
    source, labels, root = (getattr(arguments, kind + part) for part in ("", "_labels_file", "_root"))
    if labels is None and not Path(source).is_dir():
        raise ConfigError(f"{source}: a list needs its class names; give --{kind.replace('_', '-')}-labels-file")
    return read_split(source, labels, root)


def _point(model: Sequence[str], score: str, videos: str) -> TradeOffPoint:
    if len(model) < 3:
        raise ConfigError(f"--model {' '.join(model)}: give SERIES LAYERS RESULT RESULT ...")
    series, layers, *results = model
    if not layers.isdecimal():
        raise ConfigError(f"--model {series}: the number of temporal layers comes second, got {layers!r}")
    return trade_off_point(series, int(layers), [read_result(path) for path in results], score, videos)


def _folder(arguments: argparse.Namespace) -> Path:
    folder = Path(arguments.output)
    make_folder(folder)
    return folder


def _write(folder: Path, name: str, figure: Figure, csv: str) -> list[str]:
    """Write both files of an analysis; return their paths."""
    contents = {folder / f"{name}.csv": csv.encode(), folder / f"{name}.png": to_png(figure)}
    for path, content in contents.items():
        write_bytes(path, content)
    return [str(path) for path in contents]


def _show(arguments: argparse.Namespace, document: Mapping[str, Any], lines: Sequence[str], files: list[str]) -> None:
    if arguments.json:
        print(to_json({**document, "files": files}), end="")
    else:
        print("\n".join([*lines, f"wrote {' and '.join(files)}"]))


def _accuracy_entry(row: ExpertAccuracy) -> dict[str, Any]:
    return {
        "variant": row.variant,
        "close_set": {top: _finite(value) for top, value in row.close_set._asdict().items()},
        "zero_shot": {top: _finite(value) for top, value in row.zero_shot._asdict().items()},
    }


def _class_entry(row: ClassAccuracy) -> dict[str, Any]:
    top1 = {variant: _finite(value) for variant, value in row.top1.items()}
    return {"class": row.label, "name": row.name, "videos": row.videos, "top1": top1, "spread": _finite(row.spread)}


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
