"""Arguments of the command about whole collections: batch."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from mote_fast.batch.fault_kinds import FaultKind
from mote_fast.cli import options
from mote_fast.cli.checked_number import Number


def add_commands(commands: Any) -> None:
    """Register the commands."""
    described = """Label or embed a collection into a folder of Parquet files, with a row for each video. A run that was
    killed goes on when the command is given again."""
    parser = commands.add_parser("batch", help="label or embed a whole collection", description=described)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    classify = _add_run(actions, "classify", "rank labels for each video", "3x1")
    options.add_labels(classify)
    options.add_value(classify, "--topk", 5, "labels of each video", "K", least=1)
    options.add_model(classify, encodes_labels=True)
    options.add_loader(classify)
    options.add_prompts(classify)
    options.set_run(classify, "batch_runs", "run_classify")
    embed = _add_run(actions, "embed", "write an embedding of each video", "1x1")
    options.add_value(embed, "--numbers", "float32", "numbers of the embeddings", choices=("float32", "float16"))
    options.add_model(embed)
    options.add_loader(embed)
    options.set_run(embed, "batch_runs", "run_embed")

    status = _add_action(actions, "status", "count what is done and what failed, also while a run goes on")
    options.set_run(status, "batch_runs", "run_status")
    index = _add_action(actions, "index", "put the embeddings of a run into a search index, and add what it lacks")
    index.add_argument("index", metavar="INDEX", help="folder of the index: new, or of the same model")
    options.set_run(index, "batch_runs", "run_index")
    retry = _add_action(actions, "retry", "judge the videos that have no result once more")
    kinds = f"kinds of faults, separated by commas (default: all of {', '.join(get_args(FaultKind))})"
    retry.add_argument("--only", metavar="KINDS", help=kinds)
    options.add_value(retry, "--device", "auto", "auto, cpu, cuda, cuda:1, ...")
    _add_engine(retry)
    options.set_run(retry, "batch_runs", "run_retry")


def _add_action(actions: Any, name: str, purpose: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    parser.add_argument("output", metavar="OUTPUT", help="folder of a run")
    options.add_json(parser)
    return parser


def _add_run(actions: Any, name: str, purpose: str, views: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    described = "folder, pattern, list with a path on each line, .csv or .parquet; or an address, such as s3://..."
    parser.add_argument("input", metavar="INPUT", help=described)
    parser.add_argument("output", metavar="OUTPUT", help="folder for the Parquet files, or of the run to go on with")
    options.add_value(parser, "--path-column", "path", "of a table: column of the paths or addresses", "NAME")
    parser.add_argument(
        "--id-column", metavar="NAME", help="of a table: column of the ids (default: a hash of the path)"
    )
    parser.add_argument("--root", default="", metavar="FOLDER", help="base folder of relative paths")
    options.add_value(parser, "--views", views, "clips x crops, such as 1x1, 3x1, 4x3")
    options.add_framing(parser)
    every = "videos that are written at once, the most that a kill costs (default: 64, more for long lists)"
    parser.add_argument("--durable-every", type=Number("--durable-every", least=1), metavar="K", help=every)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file that is written")
    _add_engine(parser)
    return parser


def _add_engine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("engine")
    engines = "local: the model in this process; ray: models in actors of Ray, on one machine or on many"
    options.add_value(group, "--engine", "local", engines, choices=("local", "ray"))
    models = "of ray: models at work (default: one per GPU, or one)"
    group.add_argument("--actors", type=Number("--actors", least=1), metavar="N", help=models)
    cluster = "of ray: a cluster, such as auto for the one that runs here; local starts one on this machine"
    options.add_value(group, "--address", "local", cluster, "ADDRESS")
    group.add_argument(
        "--workers", type=Number("--workers", least=1), metavar="N", help="decoding processes (default: one per core)"
    )
    purpose = "frame crops of several videos in one pass of the image tower (default: one video on a CPU, else 128)"
    group.add_argument("--batch-size", type=Number("--batch-size", least=1), metavar="N", help=purpose)
    options.add_time_limit(group)
