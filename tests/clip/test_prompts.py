"""Templates and descriptions: what a file may hold, and that every other content is refused with its name."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

from mote_fast.clip.prompts import PAPER_PROMPTS, TEMPLATES, Prompts, read_prompts
from mote_fast.errors import ConfigError, LabelError, ListError


def test_files_are_read(tmp_path: Path) -> None:
    """Blank lines of templates are left out; without a file the paper's prompts stand."""
    (tmp_path / "templates.txt").write_text("a {}.\n\nthe {} of a person\n")
    (tmp_path / "told.json").write_text(json.dumps({"cello": ["It is held between the knees."]}))
    found = read_prompts(tmp_path / "templates.txt", tmp_path / "told.json", 0.25)
    assert found == Prompts(["a {}.", "the {} of a person"], {"cello": ["It is held between the knees."]}, 0.25)
    assert read_prompts(None, None) == PAPER_PROMPTS == Prompts(TEMPLATES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must hold an object"),
        ("{}", "must hold an object"),
        ('{"a": "one"}', "descriptions of 'a' must be a list of sentences, not one str"),
        ('{"a": {"b": 1}}', "not one dict"),
        ('{"a": []}', "no descriptions of 'a'"),
        ('{"a": ["b", 1]}', r"descriptions of 'a'\[1\] is a int"),
        ('{"a": [" "]}', "is blank"),
        ('{"a": ["' + "b" * 2001 + '"]}', "2001 characters"),
        ('{"a": ["\\ud800"]}', "not valid Unicode"),
        ('{"a": ["b"], "a": ["c"]}', "'a' is given twice"),
        ("{", "not JSON"),
    ],
)
def test_what_is_no_file_of_descriptions(tmp_path: Path, content: str, message: str) -> None:
    """The message names the file and the class."""
    path = tmp_path / "told.json"
    path.write_text(content)
    with pytest.raises(ListError, match=message) as caught:
        read_prompts(None, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("line", ["no place", "{} and {}", "{name}", "{} }", "{0}"])
def test_what_is_no_template(tmp_path: Path, line: str) -> None:
    """A template has one place for the name, and no brace that would stay in every prompt."""
    (tmp_path / "templates.txt").write_text(f"a {{}}.\n{line}\n")
    with pytest.raises(ListError, match=r"templates\.txt: a template holds one"):
        read_prompts(tmp_path / "templates.txt", None)
    with pytest.raises(LabelError):
        Prompts([line])


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weights_are_shares(weight: float) -> None:
    """A weight beyond [0, 1] would turn a feature away from its texts."""
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        Prompts(weight=weight)


def test_copies_and_pickles_are_equal() -> None:
    """A model that has prompts can be copied, and sent to another process."""
    prompts = Prompts(["{} here."], {"a": ["One.", "Two."]}, 0.25)
    for other in (copy.deepcopy(prompts), pickle.loads(pickle.dumps(prompts))):
        assert other == prompts
