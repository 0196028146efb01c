"""The operators in plain PyTorch for any device, and the choice between it and the Triton kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mote_fast import VideoHead, head_optimizer, training_loss
from mote_fast.cli import backends
from mote_fast.errors import BackendError, ConfigError, ShapeError
from mote_fast.head.head_config import HeadConfig
from mote_fast.kernels import reference
from mote_fast.ops import implementations, operators, torch_adamw
from mote_fast.ops.implementations import implementation_for, implemented_by, triton_problem
from mote_fast.training.method import Draws
from tests.ops.test_operators import (
    EXAMPLE,
    LAYOUTS,
    as_leaves,
    assert_matches_reference,
    pair_inputs,
    pairs,
    values_and_gradients,
)
from tests.tolerances import assert_close

CUDA = torch.device("cuda")


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose GPU Triton cannot serve."""
    monkeypatch.setattr(implementations, "triton_problem", lambda device: "a reason")


@given(pairs)
def test_pair_in_plain_pytorch(case: dict[str, Any]) -> None:
    """Values and all gradients of the pair and of the merge, as for the other implementations."""
    with implemented_by("torch"):
        assert_matches_reference("expert_pair_ffn", pair_inputs(**case))
        assert_matches_reference("merge_experts", pair_inputs(**case)[2:4])


@given(pairs, st.integers(1, 5), st.integers(1, 3))
def test_routed_in_plain_pytorch(case: dict[str, Any], batch: int, frames: int) -> None:
    """One expert per sample; experts without samples get zeros."""
    experts = pair_inputs(**case)[2]
    generator = torch.Generator().manual_seed(case["seed"])
    x = LAYOUTS[case["layout"]](torch.randn(batch, frames, case["width"], generator=generator))
    index = torch.randint(experts.shape[0], (batch,), generator=generator)
    with implemented_by("torch"):
        found = values_and_gradients(operators.routed_ffn, as_leaves((x, experts, index), torch.float32), 1)
    expected = values_and_gradients(reference.routed_ffn, as_leaves((x, experts, index), torch.float64), 1)
    for mine, truth in zip(found, expected, strict=True):
        assert_close(mine, truth)


def test_routed_tokens_are_saved_for_any_implementation_alike() -> None:
    """Order and starts of the samples are those of the CPU's grouping, whose shapes the operator promises."""
    x, index = torch.randn(4, 2, 16), torch.tensor([2, 0, 2, 1])
    expected = torch.ops.mote_fast.routed_ffn(x, EXAMPLE[2], index)[2:]
    with implemented_by("torch"):
        found = torch.ops.mote_fast.routed_ffn(x, EXAMPLE[2], index)[2:]
    for mine, truth in zip(found, expected, strict=True):
        assert mine.dtype == truth.dtype
        assert torch.equal(mine, truth)


def test_float64_passes_gradcheck() -> None:
    """Double precision is served throughout: the finite differences of gradcheck need it."""
    inputs = as_leaves(EXAMPLE, torch.float64)
    with implemented_by("torch"):
        assert torch.autograd.gradcheck(operators.expert_pair_ffn, inputs)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("factors", [1, 3])
def test_adamw_in_plain_pytorch(factors: int, on_device: bool) -> None:
    """Parameters and moments are updated as the reference updates them, numbers given by value or as tensors."""
    generator = torch.Generator().manual_seed(0)
    param, exp_avg, exp_avg_sq = torch.randn(3, 4, 50, generator=generator)
    exp_avg_sq.abs_()
    terms = [(torch.randn(50), torch.randn(50), torch.rand(4), torch.tensor(order)) for order in range(factors)]
    expected = reference.adamw_factored_step(param, exp_avg, exp_avg_sq, terms, 3, 1e-2)
    step, lr = (torch.tensor(3.0), torch.tensor(1e-2)) if on_device else (3, 1e-2)
    torch_adamw.adamw_factored(param, exp_avg, exp_avg_sq, terms, step, lr, (0.9, 0.999), 1e-8, 0.2)
    for mine, truth in zip((param, exp_avg, exp_avg_sq), expected, strict=True):
        assert_close(mine, truth)


def test_dtypes_and_devices_that_do_not_fit_are_named() -> None:
    """Real and fake kernels raise the same error, which names both dtypes."""
    x_routed, x_merged, experts, weights, index = EXAMPLE
    pair = operators.expert_pair_ffn
    wrong: list[tuple[str, Callable[[], Any]]] = [
        ("x_merged must be torch.float16", lambda: pair(x_routed.half(), x_merged, experts, weights, index)),
        ("x must be floating point.*torch.int64", lambda: pair(x_routed.long(), x_merged, experts, weights, index)),
        ("torch.int32", lambda: pair(x_routed, x_merged, experts, weights, index.int())),
        ("weights must be on the device", lambda: operators.merge_experts(experts, weights.to("meta"))),
        ("index must be on the device", lambda: pair(x_routed, x_merged, experts, weights, index.to("meta"))),
        ("x must be on the device", lambda: operators.routed_ffn(x_routed.to("meta"), experts, index)),
    ]
    for words, call in wrong:
        with pytest.raises(ShapeError, match=words):
            call()
    mode = FakeTensorMode()
    low, *fakes = (mode.from_tensor(x) for x in (x_routed.half(), x_merged, experts, weights, index))
    with mode, pytest.raises(ShapeError, match=r"x_merged must be torch\.float16"):
        pair(low, *fakes)


def test_what_serves_a_gpu(no_triton: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain PyTorch where Triton cannot serve: by the machine, or by the dtype of any tensor."""
    assert implementation_for(torch.device("cpu"), torch.float64) == "cpu"
    assert implementation_for(CUDA, torch.float32) == "torch"
    monkeypatch.setattr(implementations, "triton_problem", lambda device: None)
    assert implementation_for(CUDA, torch.bfloat16, torch.float32) == "triton"
    assert implementation_for(CUDA, torch.float32, torch.float64) == "torch"


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("torch.version.hip", "6.4", "AMD"),
        ("importlib.util.find_spec", lambda name: None, "not installed"),
        ("torch.cuda.get_device_capability", lambda device: (7, 5), "7.5"),
    ],
)
def test_why_triton_does_not_serve(monkeypatch: pytest.MonkeyPatch, attribute: str, value: Any, words: str) -> None:
    """The reason is one that doctor can print: AMD, no Triton, an old GPU."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    triton_problem.cache_clear()
    assert triton_problem(CUDA) is None
    monkeypatch.setattr(attribute, value)
    triton_problem.cache_clear()
    reason = triton_problem(CUDA)
    triton_problem.cache_clear()
    assert reason is not None
    assert words in reason


def test_an_implementation_that_cannot_serve_is_refused(no_triton: None) -> None:
    """Triton asked for by name falls back neither for float64 nor on such a GPU, and unknown names are refused."""
    with implemented_by("triton"), pytest.raises(BackendError, match=r"got torch\.float64.*'torch'"):
        operators.merge_experts(EXAMPLE[2].double(), EXAMPLE[3])
    with implemented_by("triton"), pytest.raises(BackendError, match=r"cannot serve cuda: a reason.*'torch'"):
        implementation_for(CUDA, torch.float32)
    with pytest.raises(ConfigError, match="implementation"), implemented_by("cuda"):  # type: ignore[arg-type]
        pass


class Dispatched(TorchDispatchMode):
    """Counts the operations that reach a device, and the tensors that change device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.moved: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.calls[name] += 1
        if name == "aten._fused_adamw_.tensor_lr":
            # PyTorch has no fake kernel of this one, which writes in place; a host's number would need a copy.
            assert {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)} == {"cuda"}
            return None
        out = func(*args, **(kwargs or {}))
        if name.startswith(("aten._to_copy", "aten.copy_")):
            source = args[1] if name.startswith("aten.copy_") else args[0]
            if source.device != out.device:
                self.moved.append(name)
        return out


def test_a_step_on_fake_cuda_tensors_reads_nothing(no_triton: None) -> None:
    """Plain PyTorch runs a whole step on the device: a read of a fake tensor would raise, a copy would be counted."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"), Dispatched() as trace:
        x = torch.randn(6, 16, requires_grad=True)
        experts = torch.randn(4, reference.expert_size(16), requires_grad=True)
        weights, index = torch.rand(4), torch.zeros((), dtype=torch.int64)
        y_routed, y_merged, saved, kept_rows = implementations.launchers_for("expert_ffn", x).expert_pair_forward(
            x.detach(), x.detach(), experts.detach(), weights, index
        )
        module = implementations.launchers_for("expert_ffn", x)
        *_, rows = module.expert_pair_backward(
            y_routed, y_merged, x.detach(), x.detach(), experts.detach(), kept_rows, index, saved
        )
        module.expand_expert_gradient(rows[1], rows[0], weights, index)
        routed = implementations.launchers_for("routed_ffn", x)
        chosen = torch.zeros(3, dtype=torch.int64)
        y, kept = routed.routed_forward(x.detach().view(3, 2, 16), experts.detach(), chosen)
        routed.routed_backward(y, x.detach().view(3, 2, 16), experts.detach(), chosen, kept)
        param, exp_avg, exp_avg_sq = torch.zeros(3, 4, reference.expert_size(16))
        factors, one = [(rows[1], rows[0], weights, index)], torch.ones(())
        torch_adamw.adamw_factored(param, exp_avg, exp_avg_sq, factors, one, one, (0.9, 0.999), 1e-8, 0.2)
    assert y_routed.device.type == rows.device.type == "cuda"
    assert not trace.moved
    # Two batched products forward and four backward; the routed form has as many.
    products = sum(count for name, count in trace.calls.items() if "bmm" in name)
    assert products == 12


@pytest.mark.parametrize("name", ["expert_pair_ffn", "routed_ffn"])
def test_what_is_kept_has_the_promised_shape(name: str) -> None:
    """What a GPU's implementations keep for backward is not what a CPU's own keeps, and the fake kernels know it."""
    x_routed, x_merged, experts, weights, index = EXAMPLE
    arguments = {
        "expert_pair_ffn": (x_routed, x_merged, experts, weights, index, None),
        "routed_ffn": (x_routed[None].repeat(3, 1, 1), experts, torch.tensor([2, 0, 2])),
    }[name]
    with implemented_by("torch"):
        operator = getattr(torch.ops.mote_fast, name).default
        torch.library.opcheck(operator, arguments, test_utils="test_faketensor")


def test_training_in_plain_pytorch_equals_the_cpu() -> None:
    """Three steps of the head and its optimiser, all operators together."""

    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        head = VideoHead(HeadConfig(16, 2, 2, 4))
        # The keys' bias has no gradient but rounding, which a smaller eps would magnify.
        optimizer = head_optimizer(head, 1e-2, eps=1e-3)
        frames, classes, labels = torch.randn(3, 4, 16), torch.randn(5, 16), torch.tensor([0, 3, 1])
        for step in range(3):
            draws = Draws([step, 1], [0.6, -1.2 * (step + 1)])
            training_loss(head, frames, classes, labels, 10.0, draws=draws).total.backward()
            optimizer.step()
            optimizer.zero_grad()
        return list(head.parameters())

    expected = trained()
    with implemented_by("torch"):
        found = trained()
    for mine, truth in zip(found, expected, strict=True):
        assert_close(mine, truth, "trajectory")


def test_doctor_names_what_serves_an_amd_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report says that plain PyTorch serves, and why Triton does not; the operators choose the same."""
    monkeypatch.setattr(backends, "best_device", lambda: "cuda")
    monkeypatch.setattr("torch.version.hip", "6.4")
    triton_problem.cache_clear()
    choice, chosen = backends._kernels(), implementation_for(CUDA, torch.bfloat16)
    triton_problem.cache_clear()
    assert choice.chosen == chosen == "torch"
    assert "built for AMD's, where plain PyTorch serves" in choice.others["triton"]
