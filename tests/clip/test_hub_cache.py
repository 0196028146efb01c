"""Published weights from the hub: its client's cache first, and one line where there is no network."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mote_fast.clip import hub_cache
from mote_fast.clip.pretrained import fetch_tag
from mote_fast.errors import CheckpointError
from tests.web import serve


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_cache, "try_to_load_from_cache", lambda repository, name: None)


@pytest.mark.usefixtures("empty_cache")
def test_without_a_network_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The hub client is not asked, which would retry for most of a minute; the file's own address is named."""
    monkeypatch.setattr(hub_cache.constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("mote_fast.clip.pretrained.download_pretrained", lambda values: pytest.fail("asked"))
    with pytest.raises(CheckpointError, match=r"ViT-B-16, tag 'openai'.*fetch https://.*/ViT-B-16\.pt") as caught:
        fetch_tag("ViT-B-16", "openai")
    assert "\n" not in str(caught.value)
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


@pytest.mark.usefixtures("empty_cache")
def test_a_hub_that_answers_is_asked_without_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any answer counts, an error of the server too; the client's logger is as before afterwards."""
    log = logging.getLogger("huggingface_hub")
    before, seen = log.level, []

    def download(values: object) -> str:
        seen.append(log.isEnabledFor(logging.WARNING))
        return str(tmp_path / "weights.safetensors")

    monkeypatch.setattr("mote_fast.clip.pretrained.download_pretrained", download)
    with serve(b"", status=503) as site:
        monkeypatch.setattr(hub_cache.constants, "ENDPOINT", site.url)
        assert fetch_tag("ViT-B-16", "openai") == tmp_path / "weights.safetensors"
    assert seen == [False]
    assert log.level == before


def test_cached_weights_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was fetched once is used although the hub cannot be reached."""
    monkeypatch.setattr(hub_cache, "check_reachable", lambda url: pytest.fail("asked"))
    monkeypatch.setattr(
        hub_cache,
        "try_to_load_from_cache",
        lambda repository, name: str(tmp_path / repository / name) if name.endswith(".safetensors") else None,
    )
    found = fetch_tag("ViT-L-14", "openai")
    assert found.parent == tmp_path / "timm" / "vit_large_patch14_clip_224.openai"
