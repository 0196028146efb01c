"""Settings as written: YAML files and overrides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mote_fast.errors import ConfigError
from mote_fast.training.config.settings import Setting, flatten, parse_overrides, read_document


def test_flatten_keeps_values_and_their_file() -> None:
    """Sections become dotted keys; a value in no section keeps its name, and a list or deeper mapping stays whole."""
    document = {"seed": 1, "optim": {"lr": 2, "betas": [1, 2]}, "data": {"randaug": {"N": 2}}, "run": None}
    assert flatten(document, "a.yaml") == {
        "seed": Setting(1, "a.yaml"),
        "optim.lr": Setting(2, "a.yaml"),
        "optim.betas": Setting([1, 2], "a.yaml"),
        "data.randaug": Setting({"N": 2}, "a.yaml"),
        "run": Setting(None, "a.yaml"),
    }


def test_overrides_are_yaml() -> None:
    """Values are typed as in a file, split at the first equals sign, and the last of a key holds."""
    found = parse_overrides(["a.b=1", "c.d=x=y", "a.b=[1, 2]", "e.f=", " g.h =true"])
    assert {key: setting.value for key, setting in found.items()} == {
        "a.b": [1, 2],
        "c.d": "x=y",
        "e.f": None,
        "g.h": True,
    }


@pytest.mark.parametrize("override", ["optim.lr", "=3", "--fast", "optim.lr=[1", "optim.lr={a: 1, a: 2}"])
def test_overrides_of_another_form(override: str) -> None:
    """Text that is not an override is refused with the text in the message."""
    with pytest.raises(ConfigError, match="command line") as error:
        parse_overrides([override])
    assert override.partition("=")[0] in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("optim:\n  lr: 1\n  lr: 2\n", "line 3: 'lr' is given twice"),
        ("optim:\n\tlr: 1\n", "line 2: found character"),
        ("optim: [1, 2\n", "not valid YAML"),
        ("run: !!python/object/apply:os.getcwd []\n", "line 1: could not determine a constructor"),
        ("run: !!int x\n", "not valid YAML"),
        ("run: 2024-13-01\n", "month must be in 1..12"),
        ("data: &d {frames: 8}\nmodel: *d\n", "line 1: an alias of a list"),
        ("data: &d\n  frames: [*d]\n", "an alias of a list"),
        ("data: {<<: {a: 1}, frames: &d [1]}\nmodel: {<<: [{b: 2}], c: *d}\n", "an alias of a list"),
        (f"data: {'[' * 9999}", "not valid YAML"),
        ("# " + "x" * 2**16, "larger than 65536 bytes"),
        ("- a\n- b\n", "must hold sections with keys, found list"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, message: str) -> None:
    """A file that is not a configuration is refused in one line that names the file and the position."""
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as error:
        read_document(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """A path that cannot be read is named."""
    with pytest.raises(ConfigError, match="no such configuration file"):
        read_document(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_document(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    """A file of comments alone holds no settings."""
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert read_document(path) == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40) | st.text("[]{}:-,&*!?|>'\" \n\tab1.", max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    """Any file content gives a mapping or a one-line error."""
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    found: dict | str
    try:
        found = read_document(path)
    except ConfigError as error:
        found = str(error)
    assert isinstance(found, dict) or "\n" not in found


def test_an_alias_of_a_value_is_a_value(tmp_path: Path) -> None:
    """One number written once for two keys cannot grow."""
    (tmp_path / "a.yaml").write_text("data: {batch_size: &n 4, val_batch_size: *n}\n")
    assert read_document(tmp_path / "a.yaml") == {"data": {"batch_size": 4, "val_batch_size": 4}}


def test_a_fifo_is_no_configuration(tmp_path: Path) -> None:
    """Nothing is waited for."""
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match=r"c\.yaml: cannot be read \(not a regular file\)"):
        read_document(tmp_path / "c.yaml")
