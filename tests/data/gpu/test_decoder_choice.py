"""Which decoder decodes: the fastest that gives the right frames, measured once for a GPU and its versions."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from mote_fast.data.gpu import decoder_choice
from mote_fast.data.gpu.decode_server import GpuDecoder
from mote_fast.data.gpu.decoder_choice import FILE_NAME, choose_decoder, decide, gpu_decoder
from mote_fast.data.reading_choices import GPU_DECODERS, LoaderBackend
from mote_fast.errors import BackendError, ConfigError
from tests.data.gpu.stand_in import Neighbor, StandIn, decoder_of, missing

MINE = decoder_of(StandIn)


@pytest.mark.parametrize(
    ("judged", "chosen", "against"),
    [
        ({"a": 0.2, "b": 0.1}, "b", {"a": "25.0 ms"}),
        ({"a": 0.2, "b": "it gives frames [1]"}, "a", {"b": "it gives frames [1]"}),
        ({"a": "it died", "b": "no NVDEC"}, "cpu", {"a": "it died", "b": "no NVDEC"}),
        (None, "a", {"b": "comes after it"}),
    ],
    ids=["the faster one", "wrong frames", "none serves", "nothing to measure"],
)
def test_the_choice(judged: Mapping[str, float | str] | None, chosen: str, against: dict[str, str]) -> None:
    """Time decides among those with the right frames; the order of the table where there is no time."""
    found = decide(["a", "b"], judged, {"c": "is not installed"})
    assert (found.name, found.others) == (chosen, {"c": "is not installed", **against})


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, GpuDecoder]:
    """A GPU with two decoders; both names are of the table, and the cache is empty."""
    decoders = dict.fromkeys(GPU_DECODERS, MINE)
    monkeypatch.setattr(decoder_choice, "gpu_decoder", decoders.__getitem__)
    monkeypatch.setattr(decoder_choice, "default_cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None: "a GPU")
    decoder_choice._measured.cache_clear()
    return decoders


class _Judge:
    """Counts how often decoders are judged."""

    def __init__(self, *seconds: float | str) -> None:
        self.calls = 0
        self._seconds = seconds

    def __call__(self, decoders: Mapping[str, GpuDecoder], device: torch.device, threads: int) -> dict[str, Any]:
        self.calls += 1
        assert (device, threads > 0) == (torch.device("cuda", 0), True)
        return dict(zip(decoders, self._seconds, strict=True))


def test_it_is_measured_once(two: dict[str, GpuDecoder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Once in a process, and once for the processes to come; another version of a package is measured again."""
    judge = _Judge(0.4, 0.2)
    monkeypatch.setattr("mote_fast.data.gpu.trial_video.judge", judge)
    for _ in range(2):
        assert choose_decoder("auto", "cuda").name == list(two)[1]
    assert judge.calls == 1
    decoder_choice._measured.cache_clear()
    assert choose_decoder("auto", "cuda:0").name == list(two)[1]
    assert judge.calls == 1
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.0.1")
    decoder_choice._measured.cache_clear()
    choose_decoder("auto", "cuda")
    assert judge.calls == 2
    for damage in ("{", "[]", '{"a": 1}'):
        (tmp_path / "cache" / FILE_NAME).write_text(damage)
        decoder_choice._measured.cache_clear()
        assert choose_decoder("auto", "cuda").name == list(two)[1]
    assert judge.calls == 5
    decoder_choice._measured.cache_clear()


def test_what_is_not_installed_is_not_tried(
    two: dict[str, GpuDecoder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without any of them the CPU decodes, and the reasons are told."""
    first, second = two
    two[first] = replace(MINE, why_unavailable=missing)
    judge = _Judge(0.3)
    monkeypatch.setattr("mote_fast.data.gpu.trial_video.judge", judge)
    found = choose_decoder("auto", "cuda")
    assert (found.name, found.others) == (second, {first: "no gpu; install it"})
    assert "no gpu; install it" in str(found)
    with pytest.raises(BackendError, match="cannot serve: no gpu; install it"):
        choose_decoder(first, "cuda")  # pyright: ignore[reportArgumentType]
    two[second] = two[first]
    decoder_choice._measured.cache_clear()
    found = choose_decoder("auto", "cuda")
    assert (found.name, set(found.others)) == ("cpu", {first, second})
    assert judge.calls == 1
    decoder_choice._measured.cache_clear()


def test_elsewhere_nothing_is_measured(two: dict[str, GpuDecoder]) -> None:
    """The CPU serves a model on the CPU, and whoever asks for it; a decoder that is named serves on both devices."""
    del two
    named: Any
    assert choose_decoder("auto", "cpu").name == choose_decoder("cpu", "cuda").name == "cpu"
    for named in GPU_DECODERS:
        assert choose_decoder(named, "cpu").name == choose_decoder(named, "cuda").name == named
        with pytest.raises(ConfigError, match="device must be"):
            choose_decoder(named, "meta")
    named = "decord"
    with pytest.raises(ConfigError, match="'torchcodec-gpu'"):
        choose_decoder(named, "cpu")


def test_the_table() -> None:
    """Each name can be asked for, and has all that a decoder needs."""
    assert {"auto", "cpu", *GPU_DECODERS} == set(get_args(LoaderBackend))
    for name in GPU_DECODERS:
        decoder = gpu_decoder(name)
        assert set(decoder.takes) == {"cpu", "gpu"}
        assert decoder.packages


def test_each_can_be_removed() -> None:
    """Nothing in the library imports a decoder's module but its own folder or file, so that git rm is enough."""
    library = Path(decoder_choice.__file__).parents[2]
    own = {"mote_fast.data.dali": "data/dali/", "mote_fast.data.gpu.torchcodec_gpu": "data/gpu/torchcodec_gpu.py"}
    assert all(module.startswith(tuple(own)) for module in GPU_DECODERS.values())
    for file in library.rglob("*.py"):
        place = file.relative_to(library).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                foreign = [module for module in own if any(f"{each}.".startswith(f"{module}.") for each in names)]
                assert all(place.startswith(own[module]) for module in foreign), f"{place}: {names}"


def test_a_neighbor_is_not_the_frame() -> None:
    """Of two decoders, the one that gives the frame before is not chosen, however fast it is."""
    from mote_fast.data.gpu.trial_video import WANTED, judge

    found = judge({"right": MINE, "wrong": decoder_of(Neighbor)}, torch.device("cpu"), 1, isolated=False)
    if found is None:
        pytest.skip("this PyAV has no encoder of H.264 or VP9")
    assert isinstance(found["right"], float)
    shown = [max(0, number - 1) for number in WANTED]
    assert found["wrong"] == f"it gives frames {shown} instead of {list(WANTED)}"
