"""Configurations that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.errors import ConfigError
from mote_fast.training.config.shipped import config_path, shipped, summary
from mote_fast.training.config.train_config import stated_options

CONFIGS = Path(__file__).parents[3] / "configs"


def test_every_configuration_is_shipped() -> None:
    """An installed package has no folder configs/."""
    found = {path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml")}
    assert set(shipped()) == found


@pytest.mark.parametrize("name", shipped())
def test_every_one_says_what_it_is_for(name: str) -> None:
    """The list of `mote-fast configs` shows it."""
    assert summary(config_path(name))


def test_a_file_comes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one without a suffix; a folder of that name is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke").mkdir()
    assert config_path("smoke") == shipped()["smoke"]
    (tmp_path / "folder").write_text("{}")
    assert config_path("folder") == Path("folder")
    assert config_path("smoke.yaml") == Path("smoke.yaml")


@pytest.mark.parametrize(
    ("name", "hint"), [("smok", "'smoke'"), ("table1/mes", "'table1/mse'"), ("", "mote-fast configs")]
)
def test_an_unknown_name_has_a_hint(name: str, hint: str) -> None:
    """The nearest name, or the command that lists them."""
    with pytest.raises(ConfigError, match=f"no such configuration file; .*{hint}"):
        config_path(name)


def test_a_base_may_be_a_shipped_one(tmp_path: Path) -> None:
    """A configuration of one's own, away from the checkout; a file beside it comes first."""
    path = tmp_path / "mine.yaml"
    path.write_text("base: table1/mse\noptim: {lr: 0.5}\n")
    stated = stated_options(path)
    assert (stated["optim.lr"], stated["model.arch"], stated["model.modulation"]) == (0.5, "ViT-L-14", False)
    (tmp_path / "table1").mkdir()
    (tmp_path / "table1" / "mse").write_text("model: {arch: ViT-B-32}")
    assert stated_options(path)["model.arch"] == "ViT-B-32"
