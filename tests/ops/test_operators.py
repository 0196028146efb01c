"""The registered operators on a CPU: values, every gradient, registration, compilation, autocast."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mote_fast import Draws, TrainingMethod, VideoHead, training_loss
from mote_fast.errors import DoubleBackwardError, ShapeError
from mote_fast.head.experts import merge_weights
from mote_fast.head.head_config import HeadConfig
from mote_fast.kernels import reference
from mote_fast.kernels.reference import expert_size
from mote_fast.ops import operators
from tests.tolerances import assert_close

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT,
    "every other column": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "one row for all": lambda x: x[:1].expand_as(x),
}

pairs = st.fixed_dictionaries(
    {
        "tokens": st.sampled_from((0, 1, 2, 7, 33)),
        "width": st.sampled_from((16, 32, 48)),
        "experts": st.integers(1, 16),
        "temperature": st.sampled_from(TrainingMethod().temperatures()) | st.floats(-20, -0.2) | st.just(-math.inf),
        "which": st.floats(0, 1),
        "layout": st.sampled_from(sorted(LAYOUTS)),
        "seed": st.integers(0, 1000),
    }
)


def pair_inputs(
    tokens: int, width: int, experts: int, temperature: float, which: float, layout: str, seed: int
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x_routed, x_merged = torch.randn(2, tokens, width, generator=generator)
    stack = 0.2 * torch.randn(experts, expert_size(width), generator=generator)
    index = torch.tensor(round(which * (experts - 1)))
    return LAYOUTS[layout](x_routed), LAYOUTS[layout](x_merged), stack, merge_weights(experts, temperature), index


def as_leaves(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(x.detach().to(dtype).requires_grad_() if x.is_floating_point() else x for x in tensors)


def values_and_gradients(
    run: Callable[..., Tensor | tuple[Tensor, ...]], inputs: tuple[Tensor, ...], seed: int
) -> list[Tensor]:
    """Outputs, then the gradients of all floating inputs, for output gradients drawn from ``seed``."""
    out = run(*inputs)
    outs = (out,) if isinstance(out, Tensor) else out
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype) for y in outs]
    leaves = [x for x in inputs if x.is_floating_point()]
    return [*outs, *torch.autograd.grad(outs, leaves, grads)]


def assert_matches_reference(name: str, inputs: tuple[Tensor, ...]) -> None:
    found = values_and_gradients(getattr(operators, name), as_leaves(inputs, torch.float32), 1)
    expected = values_and_gradients(getattr(reference, name), as_leaves(inputs, torch.float64), 1)
    for mine, truth in zip(found, expected, strict=True):
        # The gradient of the merge weights [E] is E dot products over all of an expert: they may cancel.
        assert_close(mine, truth, "dot product" if mine.shape == inputs[1].shape and mine.ndim == 1 else "float32")


@given(pairs)
def test_expert_pair_ffn(case: dict[str, Any]) -> None:
    """Values and all gradients against the float64 reference: odd shapes, strides, any temperature and expert."""
    assert_matches_reference("expert_pair_ffn", pair_inputs(**case))


@given(pairs)
def test_merge_experts(case: dict[str, Any]) -> None:
    """The same for merging alone, including the gradient of the weights."""
    assert_matches_reference("merge_experts", pair_inputs(**case)[2:4])


@given(pairs, st.integers(0, 5), st.integers(1, 3))
def test_routed_ffn(case: dict[str, Any], batch: int, frames: int) -> None:
    """The same for one expert per sample; experts without samples get zeros."""
    _, _, experts, _, _ = pair_inputs(**case)
    generator = torch.Generator().manual_seed(case["seed"])
    x = LAYOUTS[case["layout"]](torch.randn(batch, frames, case["width"], generator=generator))
    index = torch.randint(experts.shape[0], (batch,), generator=generator)
    inputs = as_leaves((x, experts, index), torch.float32)
    found = values_and_gradients(operators.routed_ffn, inputs, 1)
    if batch == 0:
        assert not any(grad.any() for grad in found)
        return
    expected = values_and_gradients(reference.routed_ffn, as_leaves((x, experts, index), torch.float64), 1)
    for mine, truth in zip(found, expected, strict=True):
        assert_close(mine, truth)


def test_probe_takes_the_gradient_of_both_rows() -> None:
    """The factored form: experts get nothing, and the probe's two rows expand to the dense gradient."""
    x_routed, x_merged, experts, weights, index = as_leaves(EXAMPLE, torch.float32)
    weights = weights.detach()
    dense = values_and_gradients(
        operators.expert_pair_ffn, (x_routed, x_merged, experts, weights.requires_grad_(), index), 1
    )
    probe = torch.empty(1).expand(2, experts.shape[1]).requires_grad_()
    factored = values_and_gradients(
        lambda *inputs: operators.expert_pair_ffn(*inputs[:2], experts, weights, index, inputs[2]),
        (x_routed, x_merged, probe),
        1,
    )
    g, merged = factored[-1]
    whole = weights.detach()[:, None] * merged
    whole[index] += g
    assert_close(whole, dense[4], "equivalent")
    for mine, truth in zip(factored[:4], dense[:4], strict=True):
        assert_close(mine, truth, "exact")


@pytest.mark.parametrize("mixed", [False, True])
def test_the_direct_pair_is_the_registered_one(mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager calls go around the dispatcher; values, gradients and casts are the operator's to the bit."""

    def run() -> list[Tensor]:
        inputs = as_leaves(EXAMPLE, torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            return values_and_gradients(operators.expert_pair_ffn, inputs, 1)

    found = run()
    monkeypatch.setattr(operators, "_PLAIN", ())
    for mine, truth in zip(found, run(), strict=True):
        assert mine.dtype == truth.dtype
        assert torch.equal(mine, truth)


def test_outputs_may_be_changed_in_place() -> None:
    """As those of any operator may, by a residual that is added to them."""
    mine, other = as_leaves(EXAMPLE, torch.float32), as_leaves(EXAMPLE, torch.float32)
    sum(y.mul_(3).sum() for y in operators.expert_pair_ffn(*mine)).backward()
    sum((3 * y).sum() for y in operators.expert_pair_ffn(*other)).backward()
    for a, b in zip(mine[:3], other[:3], strict=True):
        assert a.grad is not None
        assert_close(a.grad, b.grad, "exact")


def test_one_stream_alone_may_be_differentiated() -> None:
    """A loss on one of the outputs leaves zero gradients for the other stream's input."""
    x_routed, x_merged, *rest = as_leaves(EXAMPLE, torch.float32)
    operators.expert_pair_ffn(x_routed, x_merged, *rest)[0].sum().backward()
    assert x_routed.grad is not None
    assert x_merged.grad is not None
    assert x_routed.grad.any()
    assert not x_merged.grad.any()


EXAMPLE = pair_inputs(5, 16, 3, -1.2, 0.5, "contiguous", 0)


@pytest.mark.heavy
@pytest.mark.parametrize("dynamic", [False, True])
def test_operators_compile_whole(dynamic: bool) -> None:
    """One graph, forward and backward, with the same numbers."""

    def run(x_routed: Tensor, x_merged: Tensor, experts: Tensor, weights: Tensor, index: Tensor) -> Tensor:
        y_routed, y_merged = operators.expert_pair_ffn(x_routed, x_merged, experts, weights, index)
        alone = operators.routed_ffn(torch.stack((y_routed, y_merged)), experts, torch.tensor([0, 2]))
        return alone.square().sum() + operators.merge_experts(experts, weights).square().sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    inputs = as_leaves(EXAMPLE, torch.float32)
    for mine, truth in zip(
        values_and_gradients(compiled, inputs, 1), values_and_gradients(run, inputs, 1), strict=True
    ):
        assert_close(mine, truth, "equivalent")


@pytest.mark.heavy
def test_a_training_step_of_the_head_compiles_whole() -> None:
    """Draws given as tensors feed one graph with new experts and temperatures; gradients agree with eager ones."""
    torch.manual_seed(0)
    head = VideoHead(HeadConfig(16, 2, 2, 4))
    frames, classes, labels = torch.randn(3, 8, 16), torch.randn(5, 16), torch.tensor([0, 3, 1])

    def loss(experts: Tensor, temperatures: Tensor) -> Tensor:
        return training_loss(head, frames, classes, labels, 10.0, draws=Draws(experts, temperatures)).total

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for draw in ([1, 3], [-0.6, math.inf]), ([0, 2], [9.6, 1.2]):
        experts, temperatures = torch.tensor(draw[0]), torch.tensor(draw[1])
        expected = torch.autograd.grad(loss(experts, temperatures), list(head.parameters()))
        found = torch.autograd.grad(compiled(experts, temperatures), list(head.parameters()))
        for mine, truth in zip(found, expected, strict=True):
            assert_close(mine, truth)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_activations_and_keeps_master_weights(dtype: torch.dtype) -> None:
    """Outputs come in autocast's dtype, gradients in the parameters' own, both near the full-precision ones."""
    inputs = as_leaves(EXAMPLE, torch.float32)
    expected = values_and_gradients(reference.expert_pair_ffn, as_leaves(EXAMPLE, torch.float64), 1)
    with torch.autocast("cpu", dtype):
        out = operators.expert_pair_ffn(*inputs)
        merged = operators.merge_experts(*inputs[2:4])
        alone = operators.routed_ffn(inputs[0][None], inputs[2], torch.tensor([1]))
    assert {y.dtype for y in (*out, merged, alone)} == {dtype}
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(dtype) for y in out]
    leaves = [x for x in inputs if x.is_floating_point()]
    found = [*out, *torch.autograd.grad(out, leaves, grads)]
    for mine, truth in zip(found, expected, strict=True):
        assert_close(mine, truth, "bfloat16")
    assert found[4].dtype == torch.float32


def test_autocast_compiles_to_the_same_casts() -> None:
    """The autocast rule is part of the operator, so a compiled graph has it too."""
    inputs = as_leaves(EXAMPLE, torch.float32)
    compiled = torch.compile(operators.expert_pair_ffn, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        for mine, truth in zip(compiled(*inputs), operators.expert_pair_ffn(*inputs), strict=True):
            assert mine.dtype == torch.bfloat16
            assert_close(mine, truth, "exact")


def test_low_precision_master_weights() -> None:
    """bfloat16 experts under float32 activations: the gradient comes in the experts' dtype."""
    inputs = as_leaves(EXAMPLE, torch.float32)
    experts = inputs[2].detach().bfloat16().requires_grad_()
    y, _ = operators.expert_pair_ffn(*inputs[:2], experts, *inputs[3:])
    y.sum().backward()
    assert y.dtype == torch.float32
    assert experts.grad is not None
    assert experts.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["merge_experts", "expert_pair_ffn", "routed_ffn"])
def test_double_backward_is_refused_with_advice(name: str) -> None:
    """A second derivative says what to do instead of failing inside autograd."""
    x_routed, x_merged, experts, weights, index = as_leaves(EXAMPLE, torch.float32)
    arguments = {
        "merge_experts": (experts, weights),
        "expert_pair_ffn": (x_routed, x_merged, experts, weights, index),
        "routed_ffn": (x_routed, experts, torch.tensor([0, 1, 2, 0, 1])),
    }[name]
    out = getattr(operators, name)(*arguments)
    loss = (out[0] if isinstance(out, tuple) else out).square().sum()
    (gradient,) = torch.autograd.grad(loss, [experts], create_graph=True)
    with pytest.raises(DoubleBackwardError, match="once differentiable"):
        gradient.sum().backward()


def test_shapes_that_do_not_fit_are_named() -> None:
    """The error names the argument that is wrong."""
    x_routed, x_merged, experts, weights, index = EXAMPLE
    with pytest.raises(ShapeError, match="experts"):
        operators.expert_pair_ffn(x_routed[:, :8], x_merged, experts, weights, index)
    with pytest.raises(ShapeError, match="x_merged"):
        operators.expert_pair_ffn(x_routed, x_merged[:2], experts, weights, index)
    with pytest.raises(ShapeError, match="weights"):
        operators.merge_experts(experts, weights[:2])
    with pytest.raises(ShapeError, match="probe"):
        operators.expert_pair_ffn(*EXAMPLE, torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="index"):
        operators.routed_ffn(x_routed, experts, torch.tensor([0]))
    with pytest.raises(ShapeError, match="index must be a scalar"):
        operators.expert_pair_ffn(x_routed, x_merged, experts, weights, index.expand(1))


def test_devices_and_dtypes_that_do_not_fit_are_named() -> None:
    """A kernel would read another memory, or numbers of another size."""
    x_routed, x_merged, experts, weights, index = EXAMPLE
    elsewhere = torch.device("meta")
    with pytest.raises(ShapeError, match="weights must be on the device of the experts, cpu, got meta"):
        operators.merge_experts(experts, weights.to(elsewhere))
    with pytest.raises(ShapeError, match="weights must be floating point"):
        operators.merge_experts(experts, weights.long())
    with pytest.raises(ShapeError, match="index must be on the device"):
        operators.expert_pair_ffn(x_routed, x_merged, experts, weights, index.to(elsewhere))
    with pytest.raises(ShapeError, match="x_merged must be on the device"):
        operators.expert_pair_ffn(x_routed, x_merged.to(elsewhere), experts, weights, index)
    with pytest.raises(ShapeError, match=r"x_merged must be torch\.float32 like x_routed, got torch\.float16"):
        operators.expert_pair_ffn(x_routed, x_merged.half(), experts, weights, index)
    with pytest.raises(ShapeError, match=r"index must be int64, got torch\.int32"):
        operators.routed_ffn(x_routed, experts, torch.zeros(len(x_routed), dtype=torch.int32))
    with pytest.raises(ShapeError, match="x must be on the device"):
        operators.routed_ffn(x_routed.to(elsewhere), experts, torch.zeros(len(x_routed), dtype=torch.int64))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_range_of_the_index_is_checked_on_request(wrong: int) -> None:
    """On the device, so that the host never waits; a CPU raises at once."""
    x_routed, x_merged, experts, weights, _ = EXAMPLE
    chosen = torch.zeros(len(x_routed), dtype=torch.int64)
    operators.routed_ffn(x_routed, experts, chosen, check_index=True)
    with pytest.raises(RuntimeError, match=r"index must be in \[0, 3\)"):
        operators.routed_ffn(x_routed, experts, torch.full_like(chosen, wrong), check_index=True)
    with pytest.raises(RuntimeError, match=r"index must be in \[0, 3\)"):
        operators.expert_pair_ffn(x_routed, x_merged, experts, weights, torch.tensor(wrong), check_index=True)


def test_operators_are_registered_in_one_place() -> None:
    """Those of the head in operators.py; activation.py has that of towers, and products.py what calls its operator."""
    folder = Path(operators.__file__).parents[1]
    texts = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}
    found = {name: re.findall(r"torch\.library\.\w+\([^,]*", text) for name, text in texts.items()}
    assert {name: calls for name, calls in found.items() if calls} == {
        "ops/activation.py": [
            'torch.library.custom_op("mote_fast::quick_gelu"',
            'torch.library.custom_op("mote_fast::quick_gelu_backward"',
        ],
        "ops/operators.py": ['torch.library.custom_op(f"mote_fast::{name}"'],
        "ops/products.py": ['torch.library.custom_op("mote_fast::linear"'],
    }
