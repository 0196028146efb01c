"""The commands `models` and `download`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mote_fast.cli import main
from mote_fast.model import zoo
from tests.web import Site, left_in, serve

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The registry's first two models come from this machine."""
    with serve(b"weights" * 1000) as site:
        models = [replace(each, url=f"{site.url}.{at}") if at < 2 else each for at, each in enumerate(zoo._MODELS)]
        monkeypatch.setattr(zoo, "_MODELS", tuple(models))
        monkeypatch.setattr(zoo, "fetch_tag", lambda *names: site.requests.append("/".join(names)))
        yield site


def test_download_fetches_once(site: Site, capsys: Captured, tmp_path: Path) -> None:
    """Standard output has the path, standard error what is fetched and how large it is; the second time is silent."""
    path = tmp_path / "cache" / "models" / "weights.bin.0"
    assert main(["download", "mote-b16-k400"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}\n"
    assert captured.err == f"note: mote-b16-k400: fetching {site.url}.0 (0.0 MB), once\n"
    assert main(["download", "mote-b16-k400", "tiny"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}\n{zoo.list_models()['tiny'].path}\n"
    assert captured.err == ""
    # The file once, and each time a look for the original CLIP, which `load` needs too.
    assert site.requests == [None, "ViT-B-16/openai", "ViT-B-16/openai"]


def test_download_reports_each_failure_on_one_line(site: Site, capsys: Captured, tmp_path: Path) -> None:
    """No network, an unknown name: the others are fetched, and the status is 2."""
    site.status = 503
    assert main(["download", "mote-b16-k400", "nosuch", "tiny"]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{zoo.list_models()['tiny'].path}\n"
    first, second = captured.err.splitlines()
    assert first.startswith(f"mote-fast: error: {site.url}.0: cannot be fetched (the server answers 503")
    assert "'nosuch' is none of the models mote-b16-k400" in second
    assert left_in(tmp_path / "cache" / "models") == set()


def test_models_lists_what_is_there(site: Site, capsys: Captured, tmp_path: Path) -> None:
    """The address of what is not fetched, the path of what is; JSON has the same."""
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert f"{site.url}.1 (size unknown until fetched)" in out
    assert "K400 top-1 83.0 %" in out
    assert "clip:ViT-B-16/openai" in out
    assert main(["download", "mote-b16-k400"]) == 0
    capsys.readouterr()
    assert main(["models", "--json"]) == 0
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}
    assert models["mote-b16-k400"]["path"] == str(tmp_path / "cache" / "models" / "weights.bin.0")
    assert (models["mote-l14-k400"]["path"], models["mote-l14-k400"]["sha256"]) == (None, None)
