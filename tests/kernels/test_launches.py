"""The launches of each operator, on meta tensors: they hold no values, so the launchers cannot read any."""

from __future__ import annotations

import pytest
import torch

from mote_fast.kernels.reference import expert_size

pytest.importorskip("triton", reason="the launchers are of Triton kernels, and Triton is not installed")

from launches import NAMES, VIT_B_16, VIT_L_14, Shape, launches_of
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from mote_fast.kernels.tiles import MatrixTile

# One for all shapes: the choice of a tile depends on the number of tokens, and there are three at most.
TILE = MatrixTile(64, 64, 64, 4, 3)

SHAPES = [VIT_B_16, VIT_L_14, Shape(16, 1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_one_layer_takes_three_launches_forward_and_five_backward(shape: Shape) -> None:
    """Both streams of a layer's experts, gradient of all experts included."""
    pair = launches_of("pair", shape, torch.bfloat16, torch.float32)
    merge = launches_of("merge", shape, torch.bfloat16, torch.float32)
    forward = [launch for name, launch in pair.items() if name in ("rows", "up", "down")]
    backward = [merge["expand"], *(launch for name, launch in pair.items() if name.startswith("d") and name != "down")]
    assert (len(forward), len(backward)) == (3, 5)


def test_routing_moves_no_shape() -> None:
    """Grids are known before the indices are: a CUDA graph can hold them."""
    launches = launches_of("routed", VIT_B_16, torch.float16, torch.float32)
    assert list(launches) == ["group", "up", "down", "dpre", "dw_down", "dw_up", "dx"]
    assert all(isinstance(size, int) for launch in launches.values() for size in launch.grid)


@pytest.mark.parametrize("given", ["one", "two", "device"])
def test_optimiser_takes_one_launch_over_every_value(given: str) -> None:
    """Also for two micro-batches, and for step, rate and scale as tensors, which the host does not read."""
    launch = launches_of("adamw", VIT_L_14, torch.float32, torch.float32)[given]
    arguments = dict(zip((param.name for param in launch.kernel.params), launch.args, strict=True))
    (programs,) = launch.grid
    assert (programs - 1) * arguments["BLOCK"] < expert_size(VIT_L_14.width) <= programs * arguments["BLOCK"]
    assert arguments["EXPERTS"] == VIT_L_14.experts


def variants(operator: str, shapes: list[Shape]) -> dict[str, set[str]]:
    """What Triton's own binder tells the launches of some shapes apart by: each key is compiled once."""
    backend = make_backend(GPUTarget("cuda", 90, 32))
    found: dict[str, set[str]] = {}
    for shape in shapes:
        for name, launch in launches_of(operator, shape, torch.bfloat16, torch.float32, TILE).items():
            bind = create_function_from_signature(launch.kernel.signature, launch.kernel.params, backend)
            found.setdefault(name, set()).add(str(bind(*launch.args)[1]))
    return found


@pytest.mark.parametrize("operator", ["pair", "routed"])
def test_no_batch_size_compiles_twice(operator: str) -> None:
    """Clips and frames are plain numbers to Triton's binder, one and multiples of 16 among them."""
    shapes = [Shape(64, clips, frames, 4) for clips, frames in ((64, 8), (63, 8), (73, 7), (1, 1), (16, 16))]
    assert {name: len(keys) for name, keys in variants(operator, shapes).items()} == dict.fromkeys(NAMES[operator], 1)
