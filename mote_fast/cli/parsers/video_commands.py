"""Arguments of the commands about some videos: classify, timeline, watch and embed."""

from __future__ import annotations

from typing import Any

from mote_fast.cli import options
from mote_fast.cli.checked_number import Number


def add_commands(commands: Any) -> None:
    """Register the commands."""
    _add_classify(commands)
    _add_timeline(commands)
    _add_watch(commands)
    _add_embed(commands)


def _add_classify(commands: Any) -> None:
    parser = commands.add_parser("classify", help="rank labels for videos", description="Rank labels for videos.")
    options.add_videos(parser, views="3x1")
    options.add_labels(parser)
    options.add_value(parser, "--topk", 5, "labels to print per video", "K", least=1)
    options.add_forms(parser, "write results there as they come; .json, .jsonl, .csv or .txt")
    options.add_rejection(parser, "reject", "LEVEL|auto")
    options.add_model(parser, encodes_labels=True)
    options.add_loader(parser)
    options.add_prompts(parser)
    options.choose_dtype_by_device(parser)
    options.set_run(parser, "classify")


def _add_timeline(commands: Any) -> None:
    described = "Find when which label fits a video, and when none does."
    parser = commands.add_parser("timeline", help="find when which label fits a video", description=described)
    options.add_videos(parser, views=None, task="decode the next 64 frames of")
    options.add_labels(parser)
    group = _add_windows(parser)
    options.add_value(group, "--smooth", 1.0, "seconds over which scores are averaged", "SECONDS", least=0)
    purpose = "shorter gaps in a label are closed, and shorter segments left out"
    options.add_value(group, "--min-seconds", 0.5, purpose, "SECONDS", least=0)
    group.add_argument("--several", action="store_true", help="labels may overlap; otherwise there is one at a time")
    options.add_rejection(parser, "background", "LEVEL|START-END|auto")
    purpose = "write results there: .json, .jsonl, .csv, .txt; of one video .srt, .vtt, .png; .activitynet.json"
    options.add_forms(parser, purpose, several=True)
    parser.add_argument("--scores", action="store_true", help="also the scores of every window, in JSON")
    options.add_model(parser, encodes_labels=True)
    options.add_prompts(parser)
    options.set_run(parser, "timeline_command")


def _add_windows(parser: Any) -> Any:
    group = parser.add_argument_group("time")
    for flag, purpose in (
        ("--window", "seconds that a window spans, about the length of an action (default 2, or T frames at --fps)"),
        ("--fps", "frames taken each second (default T for each window)"),
        ("--hop", "seconds from a window to the next (default a quarter of a window)"),
    ):
        group.add_argument(flag, type=Number(flag, whole=False, above=0), metavar="X", help=purpose)
    return group


def _add_watch(commands: Any) -> None:
    described = "Say what a camera or a stream shows, window by window, until Ctrl-C."
    parser = commands.add_parser("watch", help="say what a camera or a stream shows", description=described)
    source = "number of a camera, address (rtsp://, http://, rtmp://, tcp://, udp://), or path of a video"
    parser.add_argument("source", metavar="SOURCE", help=source)
    options.add_labels(parser)
    group = _add_windows(parser)
    group.add_argument(
        "--seconds", type=Number("--seconds", whole=False, above=0), metavar="X", help="end after so many of the source"
    )
    retry = "seconds after which an interrupted stream is given up; 0 ends at once (default never)"
    group.add_argument("--retry", type=Number("--retry", whole=False, least=0), metavar="X", help=retry)
    options.add_rejection(parser, "background", "LEVEL|auto")
    parser.add_argument("--jsonl", action="store_true", help="print a JSON object for each window and interruption")
    options.add_model(parser, encodes_labels=True)
    options.add_prompts(parser)
    options.add_time_limit(parser, "decode the next 64 frames of a file")
    options.set_run(parser, "watch")


def _add_embed(commands: Any) -> None:
    parser = commands.add_parser(
        "embed", help="write one embedding per video", description="Write one embedding per video."
    )
    options.add_videos(parser, views="1x1")
    options.add_forms(parser, "write embeddings there; .safetensors, .npy, .json, .jsonl or .csv")
    options.add_model(parser)
    options.add_loader(parser)
    options.set_run(parser, "embed")
