"""The launches of each operator, on meta tensors: they hold no values, so the launchers cannot read any."""

from __future__ import annotations

import pytest
import torch

from mote_fast.kernels.reference import expert_size

pytest.importorskip("triton", reason="the launchers are of Triton kernels, and Triton is not installed")

from launches import VIT_B_16, VIT_L_14, Launch, Shape, launches_of

SHAPES = [VIT_B_16, VIT_L_14, Shape(16, 1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_one_layer_takes_three_launches_forward_and_five_backward(shape: Shape) -> None:
    """Both streams of a layer's experts, gradient of all experts included."""
    pair = launches_of("pair", shape, torch.bfloat16, torch.float32)
    merge = launches_of("merge", shape, torch.bfloat16, torch.float32)
    forward = [merge["forward"], *(launch for name, launch in pair.items() if name in ("up", "down"))]
    backward = [merge["expand"], *(launch for name, launch in pair.items() if name not in ("up", "down"))]
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


def test_nothing_is_compiled_per_batch_size() -> None:
    """The number of tokens is a plain argument: Triton does not recompile for a new batch size."""

    def constants(launch: Launch) -> list[object]:
        return [a for p, a in zip(launch.kernel.params, launch.args, strict=True) if p.is_constexpr]

    small = launches_of("pair", Shape(512, 64, 8, 4), torch.bfloat16, torch.float32)
    large = launches_of("pair", Shape(512, 65, 8, 4), torch.bfloat16, torch.float32)
    for name in ("up", "dpre", "dw_up"):
        assert constants(small[name]) == constants(large[name])
