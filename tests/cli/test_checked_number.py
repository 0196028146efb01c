"""Numbers of the command line."""

from __future__ import annotations

import pytest

from mote_fast.cli import main
from mote_fast.cli.checked_number import Number, NumberError
from mote_fast.cli.parsers import build_parser
from tests.cli.test_start import leaves

NUMBERS = [
    pytest.param(action.type, id=f"{parser.prog} {action.type.option}")
    for parser in leaves(build_parser())
    for action in parser._actions
    if isinstance(action.type, Number)
]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_is_checked(number: Number) -> None:
    """Words, what is not finite, fractions of whole numbers and values beyond the bounds are refused."""
    wrong = ["x", "", "nan", "inf", *(["1.5"] if number.whole else [])]
    wrong += [str(bound - 1) for bound in (number.least, number.above) if bound is not None]
    wrong += [str(bound + 1) for bound in (number.most, number.below) if bound is not None]
    wrong += [str(bound) for bound in (number.above, number.below) if bound is not None]
    for text in wrong:
        with pytest.raises(NumberError, match=f"^{number.option} must be "):
            number(text)
    for bound in (number.least, number.most):
        assert bound is None or number(str(bound)) == bound


def test_no_number_is_left_out() -> None:
    """An option with a number for its default has bounds, or says that it needs none."""
    for parser in leaves(build_parser()):
        for action in parser._actions:
            if (
                isinstance(action.default, int | float)
                and not isinstance(action.default, bool)
                and action.option_strings
            ):
                assert isinstance(action.type, Number), f"{parser.prog} {action.option_strings}"
            assert action.type not in (int, float), f"{parser.prog} {action.option_strings}"


@pytest.mark.parametrize(
    "words",
    [
        ["retrieval", "none.csv", "--batch-size", "0"],
        ["classify", "none.mp4", "--labels", "a", "--time-limit", "0"],
        ["prepare", "fewshot", "--list", "none.txt", "--output", "out", "--length", "0"],
    ],
)
def test_a_wrong_number_is_the_first_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line, before any file is opened or a model is fetched."""
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mote-fast: error: {words[-2]} must be ")
