"""torch.compile of the image tower: the same features, and one compilation for all batch sizes."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from mote_fast import VideoClassifier
from mote_fast.clip import load_towers
from tests.tolerances import assert_close


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Compiled code is kept per function: tests must not share it."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def pixels(tiny: VideoClassifier, frames: int) -> torch.Tensor:
    size = tiny.clip.image_size
    return torch.randn(frames, 3, size, size)


@pytest.mark.heavy
@torch.no_grad()
def test_one_compilation_serves_every_batch(tiny: VideoClassifier) -> None:
    """The tower is one graph without breaks, and batches of another size do not compile again."""
    counter = CompileCounterWithBackend("eager")
    tiny.compile(backend=counter, fullgraph=True)
    for frames in (8, 1, 5, 24, 2):
        x = pixels(tiny, frames)
        assert_close(tiny.clip.encode_frames(x), tiny.clip.run_vision_tower(x))
    assert counter.frame_count == 1


@pytest.mark.heavy
@pytest.mark.parametrize("attention", ["sdpa", "xformers"])
def test_the_tower_is_one_graph_on_a_gpu(attention: str) -> None:
    """Nothing in the forward pass depends on a library's import or probe: traced on tensors that are CUDA's by name."""
    towers = load_towers("ViT-test")
    counter = CompileCounterWithBackend("eager")
    with FakeTensorMode():
        for module in towers.modules():
            for name, weight in list(module._parameters.items()):
                if weight is not None:
                    module._parameters[name] = nn.Parameter(torch.empty(weight.shape, device="cuda"))
        towers.attention = attention
        towers.compiler.compile(backend=counter, fullgraph=True)
        for frames in (4, 6):
            features = towers.encode_frames(torch.empty(frames, 3, towers.image_size, towers.image_size, device="cuda"))
            assert features.device.type == "cuda"
            assert features.requires_grad
    assert counter.frame_count == 1


@pytest.mark.heavy
@torch.no_grad()
def test_a_copy_computes_with_its_own_weights(tiny: VideoClassifier) -> None:
    """A copy of a compiled model runs its own weights, not those of the original."""
    tiny.compile(backend="eager")
    x = pixels(tiny, 2)
    original = tiny.clip.encode_frames(x)
    twin = copy.deepcopy(tiny)
    twin.clip.model.visual.proj.zero_()
    assert not twin.clip.encode_frames(x).any()
    assert torch.equal(tiny.clip.encode_frames(x), original)


@pytest.mark.slow
@torch.no_grad()
def test_the_default_compiler_is_exact(tiny: VideoClassifier) -> None:
    """Inductor's code gives the eager features within the documented bound, whole and folded."""
    expected = {frames: tiny.clip.run_vision_tower(pixels(tiny, frames).fill_(0.3)) for frames in (1, 3, 8)}
    tiny.compile()
    for frames, features in expected.items():
        assert_close(tiny.fold().clip.encode_frames(pixels(tiny, frames).fill_(0.3)), features)
