"""Arguments of the commands about models and this installation: convert, models, download, doctor and demo."""

from __future__ import annotations

from typing import Any

from mote_fast.cli import options


def add_commands(commands: Any) -> None:
    """Register the commands."""
    described = "Convert released .pt files to model folders, and back."
    parser = commands.add_parser("convert", help="released checkpoint <-> model folder", description=described)
    parser.add_argument("source", metavar="SOURCE", help="released .pt file, or a model folder")
    parser.add_argument("target", metavar="TARGET", help="a folder for a .pt source, a .pt file for a folder source")
    options.add_released(parser)
    options.set_run(parser, "convert")

    described = "List the models that have a name."
    parser = commands.add_parser("models", help="list the models that have a name", description=described)
    options.add_json(parser)
    options.set_run(parser, "models")

    described = "Fetch the weights of models that have a name."
    parser = commands.add_parser("download", help="fetch the weights of named models", description=described)
    parser.add_argument("models", nargs="+", metavar="NAME", help='a name of "mote-fast models"')
    options.set_run(parser, "download")

    described = "Report versions, the backend chosen for each job, and the reason against each other one."
    parser = commands.add_parser("doctor", help="report versions and chosen backends", description=described)
    options.add_json(parser)
    options.set_run(parser, "doctor")

    described = "Classify shipped videos of classes that the shipped tiny model was not trained on."
    parser = commands.add_parser("demo", help="classify drawn videos of unseen classes", description=described)
    parser.add_argument("--folder", default="demo", help="where the videos are copied to (default ./%(default)s)")
    options.set_run(parser, "demo")
