"""Arguments of the commands that measure on lists of videos: eval, retrieval, sweep and analyse."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from mote_fast.cli import options
from mote_fast.cli.checked_number import Number
from mote_fast.evaluation.protocol_names import DEFAULT_VIEWS, LOCALIZATION, RETRIEVAL_VIEWS, ProtocolName
from mote_fast.model.model_defaults import DEFAULT_FRAMES

WINDOW = "seconds that a window of a timeline spans (default 2)"
# Views of the two lists of a comparison.
_BOTH_VIEWS = f"{DEFAULT_VIEWS['closeset']} and {DEFAULT_VIEWS['zeroshot']}"


def add_commands(commands: Any) -> None:
    """Register the commands."""
    purpose = "accuracies by the protocols of the paper"
    described = """Accuracies of a model on lists of videos, by the protocols of the paper. Several lists are treated as
    splits: the report has the accuracies of each, their mean and deviation. Under torchrun the processes divide the
    videos; each video is decoded once, and the result is the same for any number of processes."""
    parser = commands.add_parser("eval", help=purpose, description=described)
    add_eval_arguments(parser)
    options.set_run(parser, "eval")
    _add_retrieval(commands)
    _add_sweep(commands)
    _add_analyse(commands)


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of eval."""
    views = ", ".join(f"{protocol} {default}" for protocol, default in DEFAULT_VIEWS.items())
    protocols = (*get_args(ProtocolName), LOCALIZATION)
    parser.add_argument("--protocol", choices=protocols, required=True, help="what is measured")
    data = parser.add_argument_group("data")
    options.add_list(data, several=True, required=False)
    described = "in place of --list: YAML files with data.val_list, of this project or of the official code"
    data.add_argument("--config", metavar="FILE", help=described, **options.SEVERAL)
    options.add_loading(parser, views)
    untrimmed = parser.add_argument_group("localization")
    purpose = "part of the annotations: THUMOS14's test or val, ActivityNet's validation or training"
    options.add_value(untrimmed, "--subset", "validation", purpose, "NAME")
    untrimmed.add_argument("--window", type=Number("--window", whole=False, above=0), metavar="SECONDS", help=WINDOW)
    options.add_rejection(parser, "background", "LEVEL|auto")
    results = parser.add_argument_group("results")
    results.add_argument("--dataset", metavar="NAME", help="name in the report (default: the lists' names)")
    results.add_argument(
        "--output", metavar="FOLDER", help="write result.json, report.md, per_class.csv and predictions.parquet there"
    )
    options.add_json(results)
    options.add_model(parser, encodes_labels=True)
    options.add_modulation(parser)
    options.add_prompts(parser)
    options.choose_dtype_by_device(parser)
    parser.set_defaults(given=frozenset())


def _add_retrieval(commands: Any) -> None:
    purpose = "text-video retrieval: recall and ranks in both directions"
    described = """How well captions find their videos, and videos their captions. Under torchrun the processes divide
    the videos and the captions; the result is the same for any number of processes."""
    parser = commands.add_parser("retrieval", help=purpose, description=described)
    parser.add_argument("list", metavar="LIST", help="CSV or JSON of videos and captions")
    parser.add_argument("--root", default="", metavar="FOLDER", help="base folder of the list's paths")
    parser.add_argument("--split", metavar="NAME", help="the videos of this split, for a JSON in MSR-VTT's form")
    options.add_loading(parser, RETRIEVAL_VIEWS)
    results = parser.add_argument_group("results")
    results.add_argument("--dataset", metavar="NAME", help="name in the report (default: the list's name)")
    results.add_argument("--output", metavar="FOLDER", help="write result.json and report.md there")
    options.add_json(results)
    options.add_model(parser, encodes_labels=True)
    options.add_templates(parser, "caption (default: captions as they are)")
    options.choose_dtype_by_device(parser)
    options.set_run(parser, "retrieval")


def _add_sweep(commands: Any) -> None:
    described = "Close-set against zero-shot accuracy over a setting of a trained model."
    parser = commands.add_parser("sweep", help="close-set against zero-shot accuracy", description=described)
    sweeps = parser.add_subparsers(dest="sweep", required=True, metavar="SWEEP")
    purpose = "over the share of the fine-tuned image tower"
    described = f"""Close-set against zero-shot accuracy {purpose}: the fine-tuned tower is mixed with the original
    CLIP's at several shares. Each video is decoded once, and class names are encoded once; the image tower and the head
    run at each share. Under torchrun the processes divide the videos."""
    sweep = sweeps.add_parser("interpolate", help=purpose, description=described)
    kind = Number("--shares", whole=False, least=0, most=1)
    sweep.add_argument(
        "--shares", type=kind, metavar="SHARE", help="in [0, 1] (default 0 0.1 0.2 ... 1)", **options.SEVERAL
    )
    _add_two_lists(sweep)
    options.add_score(sweep)
    options.add_loading(sweep, _BOTH_VIEWS)
    files = "interpolate.csv, interpolate.png and interpolate.json"
    sweep.add_argument("--output", required=True, metavar="FOLDER", help=f"write {files} there")
    options.add_json(sweep)
    model = sweep.add_argument_group("model")
    purpose = "released MoTE .pt file, or a folder written by save()"
    model.add_argument("--checkpoint", required=True, metavar="PATH", help=purpose)
    purpose = "the CLIP that the model was tuned from: a weights file or a tag; for a folder too"
    model.add_argument("--clip", required=True, metavar="PATH|TAG", help=purpose)
    options.add_value(model, "--frames", DEFAULT_FRAMES, "frames per view of a released file", "T", least=1)
    options.add_value(model, "--device", "auto", "auto, cpu, cuda, cuda:1, ...")
    # A quantised tower cannot be mixed.
    purpose = "dtype of the parameters; they are mixed in float32"
    options.add_value(model, "--dtype", "float32", purpose, choices=options.FLOATS)
    options.add_decode(model)
    model.add_argument("--no-cache", action="store_true", help="neither read nor write class features on disk")
    options.add_prompts(sweep)
    options.set_run(sweep, "sweep")


def _add_analyse(commands: Any) -> None:
    described = "Measure and plot the behaviour of each expert of a model."
    parser = commands.add_parser("analyse", help="what each expert does: numbers and plots", description=described)
    analyses = parser.add_subparsers(dest="analysis", required=True, metavar="ANALYSIS")

    experts = _add_analysis(analyses, "experts", "close-set and zero-shot accuracy of each expert")
    _add_two_lists(experts)
    experts.add_argument(
        "--beside",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "PATH"),
        help="another model and its name, such as CLIP-Mean; repeat for each",
    )
    _add_judging(experts, _BOTH_VIEWS)

    classes = _add_analysis(analyses, "classes", "accuracy of each expert on every class")
    options.add_list(classes)
    options.add_value(classes, "--shown", 20, "classes in the plot and the text", "N", least=1)
    _add_judging(classes, DEFAULT_VIEWS["zeroshot"])

    similarity = _add_analysis(analyses, "similarity", "how alike the experts' features are")
    options.add_list(similarity, labels=False)
    options.add_value(similarity, "--count", 100, "videos of the list", "N", least=1)
    options.add_loading(similarity, DEFAULT_VIEWS["fewshot"])
    options.add_model(similarity)

    attention = _add_analysis(analyses, "attention", "where in the frames each expert looks")
    attention.add_argument("video", metavar="VIDEO", help="a video file")
    options.add_model(attention)


def _add_two_lists(parser: argparse.ArgumentParser) -> None:
    for kind in ("close-set", "zero-shot"):
        options.add_list(parser.add_argument_group(kind), kind)


def _add_analysis(analyses: Any, name: str, purpose: str) -> argparse.ArgumentParser:
    parser = analyses.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    parser.add_argument("--output", required=True, metavar="FOLDER", help=f"write {name}.png and {name}.csv there")
    options.add_json(parser)
    options.set_run(parser, "analyse", f"run_{name}")
    return parser


def _add_judging(parser: argparse.ArgumentParser, views: str) -> None:
    options.add_score(parser)
    options.add_modulation(parser)
    options.add_loading(parser, views)
    options.add_model(parser, encodes_labels=True)
    options.add_prompts(parser)
