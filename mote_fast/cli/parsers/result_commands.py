"""Arguments of the commands about results of eval and figures of the paper: tradeoff, base2novel and reproduce."""

from __future__ import annotations

from typing import Any

from mote_fast.cli import options
from mote_fast.evaluation.paper_rows import B16, L14, TABLES
from mote_fast.evaluation.protocol_names import ALL, READABLE

# The option with the released file of each model.
RELEASED = {B16: "b16", L14: "l14"}


def add_commands(commands: Any) -> None:
    """Register the commands."""
    _add_reproduce(commands)
    _add_tradeoff(commands)
    _add_base2novel(commands)


def _add_reproduce(commands: Any) -> None:
    described = """The paper's rows that need no training, from the released checkpoints and your data. DATA has the
    lists in lists/NAME and the videos in videos/NAME, for k400, ucf101, hmdb51 and k600 as "mote-fast prepare NAME"
    writes them. What is missing is named, and the rest is evaluated. An evaluation whose result is in the output
    folder is not repeated. Under torchrun the processes divide the videos."""
    parser = commands.add_parser("reproduce", help="the paper's rows that need no training", description=described)
    parser.add_argument("tables", nargs="+", metavar="TABLE", help=f"table of the paper: {', '.join(TABLES)}")
    parser.add_argument("--root", required=True, metavar="DATA", help="folder with lists/NAME and videos/NAME")
    for model, flag in RELEASED.items():
        purpose = f"the released file of {model}, and its original CLIP; default: the fetched one"
        parser.add_argument(f"--{flag}", nargs="+", metavar=("FILE", "CLIP"), help=purpose)
    options.add_score(parser)
    parser.add_argument("--output", required=True, metavar="FOLDER", help="write reproduce.* and every result there")
    options.add_json(parser)
    running = parser.add_argument_group("running")
    options.add_value(running, "--device", "auto", "auto, cpu, cuda, cuda:1, ...")
    options.add_value(running, "--dtype", options.BY_DEVICE, "dtype of the parameters", choices=options.DTYPES)
    options.add_decode(running)
    options.add_value(running, "--batch-size", 8, "videos per batch and process", "N", least=1)
    options.add_value(running, "--workers", 4, "decoding worker processes, for each process", "N", least=0)
    options.add_loader(running)
    options.set_run(parser, "reproduce")


def _add_tradeoff(commands: Any) -> None:
    purpose = "HM_ZS and trade-off score from results of eval"
    described = f"{purpose}, of one model or several with a plot."
    parser = commands.add_parser("tradeoff", help=purpose, description=described)
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument(
        "results",
        nargs="*",
        default=[],
        metavar="RESULT",
        help="results of one model: result.json files or their folders, zero-shot ones and one close-set",
    )
    models.add_argument(
        "--model",
        nargs="+",
        action="append",
        dest="models",
        metavar=("SERIES LAYERS RESULT", "RESULT"),
        help="one of several models: its line in the plot, its temporal layers, and its results; repeat for each model",
    )
    options.add_score(parser)
    options.add_value(parser, "--videos", READABLE, "which videos count", choices=(READABLE, ALL))
    parser.add_argument("--output", metavar="FOLDER", help="with --model: write tradeoff.png and tradeoff.csv there")
    options.add_json(parser)
    options.set_run(parser, "tradeoff")


def _add_base2novel(commands: Any) -> None:
    described = "Base, novel and harmonic mean of each data set, from results of several seeds."
    parser = commands.add_parser(
        "base2novel", help="table of results of eval --protocol base2novel", description=described
    )
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="result.json files or folders of one, for each data set and seed",
    )
    options.add_score(parser)
    options.add_value(parser, "--videos", READABLE, "which videos count", choices=(READABLE, ALL))
    options.add_json(parser)
    options.set_run(parser, "base2novel")
