"""Arguments of the commands about models and this installation: convert, export, push, models, doctor and others."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from mote_fast.cli import options
from mote_fast.exports.export_choices import Format, GraphName


def add_commands(commands: Any) -> None:
    """Register the commands."""
    described = "Convert released .pt files to model folders, and back."
    parser = commands.add_parser("convert", help="released checkpoint <-> model folder", description=described)
    parser.add_argument("source", metavar="SOURCE", help="released .pt file, or a model folder")
    parser.add_argument("target", metavar="TARGET", help="a folder for a .pt source, a .pt file for a folder source")
    options.add_released(parser)
    options.set_run(parser, "convert")

    described = "Write a model as ONNX or PyTorch graphs that run without this library."
    parser = commands.add_parser("export", help="model -> ONNX, pt2 or compiled graphs", description=described)
    parser.add_argument("model", metavar="MODEL", help="a model folder, a released .pt file, or a model's name")
    parser.add_argument("folder", metavar="FOLDER", help="folder for the export; an earlier export is replaced")
    purpose = "onnx travels; pt2 is PyTorch's; aoti is compiled for this machine"
    options.add_value(parser, "--format", "onnx", purpose, choices=get_args(Format))
    purpose = "write one graph (default: two, tower and head)"
    parser.add_argument("--part", choices=get_args(GraphName), help=purpose)
    options.add_labels(parser)
    options.add_released(parser)
    options.add_prompts(parser)
    # What other commands ask for: exports are made of float32 models on the CPU.
    parser.set_defaults(checkpoint=None, clip_pretrained=None, header=None, device="cpu", dtype="float32")
    parser.set_defaults(decode="auto", no_cache=False, no_modulation=False, templates=None, descriptions=None)
    options.set_run(parser, "export")

    described = "Upload a model folder to the Hugging Face hub as one commit, with a card; hf auth login comes first."
    parser = commands.add_parser("push", help="upload a model folder to the hub", description=described)
    parser.add_argument("folder", metavar="FOLDER", help="a folder written by save() or by a training")
    parser.add_argument("repository", metavar="ORGANIZATION/NAME", help="made if it does not exist")
    visibility = "whether a new repository is private (default: as the organization has it)"
    parser.add_argument("--private", action=argparse.BooleanOptionalAction, help=visibility)
    parser.add_argument("--revision", metavar="BRANCH", help="made if it does not exist (default: the main branch)")
    options.add_value(parser, "--message", "Model of mote_fast", "of the commit", "TEXT")
    parser.add_argument(
        "--license", metavar="NAME", help='of the weights, in the hub\'s spelling, such as "apache-2.0"'
    )
    shown = "folders or files that eval --output wrote; the card shows them"
    parser.add_argument("--results", metavar="FOLDER", help=shown, **options.SEVERAL)
    described = "README.md in place of the one written from the model (default: the folder's or the repository's own)"
    parser.add_argument("--card", metavar="FILE", help=described)
    options.set_run(parser, "push")

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
    parser.add_argument(
        "--gpu", action="store_true", help="also compile the kernels on the GPU and check values; takes up to 3 minutes"
    )
    options.add_json(parser)
    options.set_run(parser, "doctor")

    described = "Classify shipped videos of classes that the shipped tiny model was not trained on."
    parser = commands.add_parser("demo", help="classify drawn videos of unseen classes", description=described)
    parser.add_argument("--folder", default="demo", help="where the videos are copied to (default ./%(default)s)")
    options.set_run(parser, "demo")
