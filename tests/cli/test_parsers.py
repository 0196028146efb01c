"""The command line as a whole: versions, where options may stand, and the words of help texts and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mote_fast
from mote_fast.cli import inputs, main, outputs
from mote_fast.cli.parsers import build_parser
from tests.cli.test_start import leaves

Captured = pytest.CaptureFixture[str]


def test_version(capsys: Captured) -> None:
    """One line has the versions that a report of a fault needs."""
    with pytest.raises(SystemExit) as ending:
        main(["--version"])
    assert ending.value.code == 0
    assert capsys.readouterr().out == f"mote_fast {mote_fast.__version__} (torch {torch.__version__.split('+')[0]})\n"


def test_verbose_stands_before_and_after_the_command() -> None:
    """The option has one meaning in both places, and is off otherwise."""
    words = ["prepare", "fewshot", "--list", "a", "--output", "b"]
    for line, expected in (
        (words, False),
        (["--verbose", *words], True),
        (["prepare", "--verbose", *words[1:]], True),
        ([*words, "--verbose"], True),
    ):
        assert build_parser().parse_args(line).verbose is expected


def test_help_texts_are_plain() -> None:
    """No markup of documents, which a terminal shows as it is; every command says what it does."""
    for parser in leaves(build_parser()):
        assert "`" not in parser.format_help(), parser.prog
        assert parser.description, parser.prog


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("pass clip=, the original CLIP", "pass --clip, the original CLIP"),
        ("dtype='int8' runs on the CPU", "--dtype int8 runs on the CPU"),
        ("load it with dtype=torch.float32", "load it with --dtype float32"),
        ("give interpolate=1", "give --interpolate 1"),
        ("my-clip=a.mp4: no such file", "my-clip=a.mp4: no such file"),
    ],
)
def test_errors_name_options(message: str, shown: str, capsys: Captured) -> None:
    """Where the library names its arguments, the command line names its options; names of files stay."""
    outputs.report([message])
    assert capsys.readouterr().err == f"mote-fast: error: {shown}\n"


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda:99"])
def test_a_device_that_is_not_there(device: str, moving_video: Path, capsys: Captured) -> None:
    """One line that fits a screen, without PyTorch's lists."""
    assert main(["classify", str(moving_video), "--labels", "a", "--device", device]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mote-fast: error: --device {device}: ")
    assert len(line) < 320


@pytest.mark.parametrize(
    ("given", "cuda", "gain", "expected"),
    [
        ([], False, 3.0, "float32"),
        ([], True, 10.0, "bfloat16"),
        ([], True, 0.0, "float32"),
        (["--dtype", "auto"], False, 3.0, "bfloat16"),
        (["--dtype", "float16"], True, 10.0, "float16"),
        (["--dtype", "int8"], True, 10.0, "int8"),
    ],
    ids=["cpu", "gpu", "gpu-without-bfloat16", "auto", "named", "int8"],
)
def test_commands_that_evaluate_take_the_dtype_of_the_device(
    monkeypatch: pytest.MonkeyPatch, given: list[str], cuda: bool, gain: float, expected: str
) -> None:
    """Exact on a CPU; on a GPU, where float32 leaves most of it unused, bfloat16 if a measurement finds it faster."""
    monkeypatch.setattr(inputs, "device_of", lambda arguments: "cuda" if cuda else "cpu")
    monkeypatch.setattr("mote_fast.model.dtypes.bfloat16_gain", lambda device: gain)
    for command in (
        ["classify", "a.mp4"],
        ["eval", "--list", "a.csv", "--protocol", "zeroshot"],
        ["retrieval", "a.csv"],
    ):
        arguments = build_parser().parse_args([*command, *given])
        inputs.settle_dtype(arguments)
        assert arguments.dtype == expected
