"""Options of models: each applies to a kind of model, or is refused with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.cli import main
from mote_fast.cli.model_kinds import APPLY, OPTIONS, Kind, check_options, kind_of
from mote_fast.cli.parsers import build_parser
from mote_fast.errors import ConfigError
from mote_fast.runtime.environment import PRESETS

VALUES = {"clip": "x.pt", "interpolate": "0.5", "frames": "4", "clip_pretrained": "openai", "header": "plain"}

# Words that name a model of each kind.
NAMED: list[tuple[Kind, list[str]]] = [
    ("released", ["--model", "mote-b16-k400"]),
    ("released", ["--checkpoint", "some.pt"]),
    ("folder", ["--model", "tiny"]),
    ("folder", ["--checkpoint", str(PRESETS / "tiny")]),
    ("folder", ["--checkpoint", "hf-hub:org/name"]),
    ("clip", ["--model", "clip:ViT-B-16/openai"]),
    ("architecture", ["--model", "ViT-B-16"]),
]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("kind", "words"), NAMED, ids=lambda value: value if isinstance(value, str) else value[1][-14:]
)
def test_each_option_applies_or_is_refused(kind: Kind, words: list[str], option: str) -> None:
    """By the table; the message names the option and the model."""
    flag = f"--{option.replace('_', '-')}"
    arguments = build_parser().parse_args(["classify", "v.mp4", *words, flag, VALUES[option]])
    assert kind_of(arguments) == kind
    if option in APPLY[kind]:
        check_options(arguments)
    else:
        with pytest.raises(ConfigError, match=f"^{flag} does not apply to "):
            check_options(arguments)


def test_the_table_has_every_option_of_the_model() -> None:
    """A new option of models must be put into the table, or among those that apply to all."""
    anywhere = {"checkpoint", "model", "device", "dtype", "compile", "calibrate", "decode", "no_cache"}
    parser = build_parser()._subparsers._group_actions[0].choices["classify"]  # pyright: ignore
    (group,) = (group for group in parser._action_groups if group.title == "model")
    assert {action.dest for action in group._group_actions} == {*OPTIONS, *anywhere}
    assert {option for options in APPLY.values() for option in options} == {*OPTIONS}


def test_folders_that_are_converted_record_their_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The released form has no place for them."""
    status = main(["convert", str(PRESETS / "tiny"), str(tmp_path / "out.pt"), "--frames", "4"])
    assert status == 2
    assert "--frames does not apply to" in capsys.readouterr().err
