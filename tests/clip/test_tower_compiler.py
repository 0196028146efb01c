"""When the image tower is compiled: never for one video, on a GPU after much work, and what happens where it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from mote_fast import VideoClassifier, create_model
from mote_fast.clip import load_towers, tower_compiler
from mote_fast.clip.towers import ClipTowers
from mote_fast.errors import BackendError, ConfigError
from tests.pretended_cuda import pretended_cuda
from tests.tolerances import assert_close

WORTH = 10


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Compiled code is kept per function: tests must not share it."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClipTowers]:
    """Towers whose tensors Python takes for CUDA's, with a compiler that seems to work."""
    monkeypatch.setattr(tower_compiler, "WORTH_COMPILING", WORTH)
    monkeypatch.setattr(tower_compiler, "compiler_problem", lambda device: None)
    monkeypatch.setattr("mote_fast.clip.towers.resolve_backend", lambda *_: "sdpa")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    # Marks would need the compiler's own tensors.
    monkeypatch.setattr(torch._dynamo, "maybe_mark_dynamic", lambda *_: None)
    towers = load_towers("ViT-test")
    with pretended_cuda():
        yield towers.to("cuda")


def encode(towers: ClipTowers, frames: int, *, many: bool = True) -> torch.Tensor:
    size = towers.image_size
    return towers.encode_frames(torch.empty(frames, 3, size, size, device=towers.device), many=many)


@torch.no_grad()
def test_auto_waits_for_much_work(on_cuda: ClipTowers) -> None:
    """One video never waits for the compiler; what comes after many frames of many videos does, once."""
    on_cuda.compiler.choose("auto")
    for _ in range(5):
        assert encode(on_cuda, WORTH, many=False).shape == (WORTH, on_cuda.embed_dim)
    encode(on_cuda, WORTH - 1)
    assert on_cuda.compiler.state == "eager"
    encode(on_cuda, 1)
    assert on_cuda.compiler.state == "compiled"
    # What is compiled serves everything.
    assert encode(on_cuda, 1, many=False).shape == (1, on_cuda.embed_dim)


@pytest.mark.parametrize("choice", ["auto", False])
def test_what_does_not_compile(on_cuda: ClipTowers, choice: Any) -> None:
    """Work with gradients is training's to decide; False is never."""
    on_cuda.compiler.choose(choice)
    with torch.set_grad_enabled(choice == "auto"):
        encode(on_cuda, 2 * WORTH)
    assert on_cuda.compiler.state == "eager"
    assert on_cuda.compiler.start(on_cuda.device) == (choice == "auto")


@torch.no_grad()
def test_a_missing_compiler_is_told_once(
    on_cuda: ClipTowers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The work goes on, and results say why it was not compiled."""
    monkeypatch.setattr(tower_compiler, "compiler_problem", lambda device: "there is no C compiler")
    on_cuda.compiler.choose("auto")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            encode(on_cuda, WORTH)
    assert [record.getMessage() for record in caplog.records] == [
        "the image tower runs without torch.compile: there is no C compiler"
    ]
    assert on_cuda.compiler.state == "eager: there is no C compiler"


@torch.no_grad()
@pytest.mark.parametrize("choice", ["auto", True])
def test_a_failing_compiler(
    on_cuda: ClipTowers, choice: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ "auto" goes on and says so; True raises."""

    def fails(*_: object) -> None:
        raise TorchDynamoException("ptxas is too old")

    monkeypatch.setattr(torch, "compile", lambda function, **_: fails)
    on_cuda.compiler.choose(choice)
    if choice is True:
        with pytest.raises(BackendError, match="ptxas is too old"):
            encode(on_cuda, 2)
        return
    for _ in range(2):
        assert encode(on_cuda, WORTH).shape == (WORTH, on_cuda.embed_dim)
    assert on_cuda.compiler.state == "eager: torch.compile fails: ptxas is too old"
    assert len(caplog.records) == 1


@torch.no_grad()
def test_a_cpu_stays_as_it_is(tiny: VideoClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """There "auto", the default of loaded models, changes nothing."""
    monkeypatch.setattr(tower_compiler, "WORTH_COMPILING", 1)
    assert tiny.clip.compiler.choice == "auto"
    encode(tiny.clip, 2)
    tiny.prepare_to_serve()
    assert tiny.image_tower == "eager"


@pytest.mark.heavy
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_one_graph_serves_every_number_of_frames(context: Any) -> None:
    """Of one frame or many: the compiler makes a single graph, whichever comes first."""
    towers = load_towers("ViT-test")
    towers.compiler.compile(backend="aot_eager", fullgraph=True)
    size = towers.image_size
    with context():
        for frames in (1, *range(1, 10), 33, 1):
            x = torch.randn(frames, 3, size, size)
            assert_close(towers.encode_frames(x), towers.run_vision_tower(x))
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.heavy
def test_a_server_compiles_as_it_starts(tiny: VideoClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first request meets compiled code, for any number of frames."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled(function, backend="eager"))
    tiny.clip.compiler.choose(True)
    tiny.prepare_to_serve()
    assert counters["stats"]["unique_graphs"] == 1
    with torch.no_grad():
        encode(tiny.clip, 5)
    assert counters["stats"]["unique_graphs"] == 1
    assert tiny.image_tower == "compiled"


def test_what_cannot_be_compiled_is_refused() -> None:
    """Before weights are read."""
    with pytest.raises(ConfigError, match="compile must be"):
        create_model("no such model", compile="always")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="does not run in PyTorch"):
        create_model("ViT-test", dtype="int8", compile=True)
