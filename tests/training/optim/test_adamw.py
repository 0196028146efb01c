"""head_optimizer against torch.optim.AdamW on dense gradients: the same mathematics, state and interface."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mote_fast import Draws, VideoHead, head_optimizer, training_loss
from mote_fast.errors import ConfigError
from mote_fast.head.experts import TemporalExperts
from mote_fast.head.head_config import HeadConfig
from mote_fast.kernels.reference import expert_size
from mote_fast.model.released import head_from_released
from mote_fast.ops import cpu_adamw, cpu_experts, cpu_memory
from mote_fast.training.optim import HeadAdamW
from tests.pretended_cuda import pretended_cuda
from tests.streams import stream_logits
from tests.test_golden import HEADS, LOGIT_SCALE, draws
from tests.tolerances import assert_close

WIDTH = 16
# The key bias has a gradient of zero but for rounding; a large eps keeps AdamW from blowing that up to a full step.
OPTIONS: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.2, "betas": (0.8, 0.95), "eps": 1e-3}


def make_heads(experts: int = 4, seed: int = 0) -> tuple[VideoHead, VideoHead]:
    """The same head twice."""
    torch.manual_seed(seed)
    head = VideoHead(HeadConfig(WIDTH, 2, 2, experts))
    return head, copy.deepcopy(head)


def backward(head: VideoHead, seed: int, scale: float = 1.0) -> None:
    """One micro-batch, the same for every head of the same sizes."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(3, 5, WIDTH, generator=generator)
    classes = torch.randn(7, WIDTH, generator=generator)
    labels = torch.randint(7, (3,), generator=generator)
    (scale * training_loss(head, frames, classes, labels, 10.0, generator=generator).total).backward()


def weights_of(head: VideoHead) -> list[TemporalExperts]:
    return [module for module in head.modules() if isinstance(module, TemporalExperts)]


def assert_same_parameters(mine: VideoHead, other: VideoHead) -> None:
    for (name, a), b in zip(mine.named_parameters(), other.parameters(), strict=True):
        assert torch.isfinite(a).all(), name
        assert_close(a, b, "trajectory")


@pytest.mark.heavy
@settings(max_examples=15)
@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 100))
def test_steps_match_torch_adamw(experts: int, passes: int, seed: int) -> None:
    """Three steps of several micro-batches each, for few and many experts: factored, then densified, same updates."""
    mine, other = make_heads(experts, seed)
    ours, theirs = head_optimizer(mine, **OPTIONS), torch.optim.AdamW(other.parameters(), **OPTIONS)
    for step in range(3):
        for i in range(passes):
            backward(mine, seed + 10 * step + i)
            backward(other, seed + 10 * step + i)
        dense = [module.weight.grad is not None for module in weights_of(mine)]
        assert dense == [2 * passes > experts] * 2
        ours.step()
        theirs.step()
        ours.zero_grad()
        theirs.zero_grad()
    assert_same_parameters(mine, other)


@pytest.mark.parametrize("slice_size", [100, 1 << 18])
def test_factored_update_in_slices(slice_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices that do not divide the row, and pairs of an odd number of experts, change nothing; factors add up."""
    monkeypatch.setattr(cpu_adamw, "SLICE", slice_size)
    torch.manual_seed(0)
    size = expert_size(WIDTH)
    param, first = torch.randn(2, 3, size)
    second = torch.rand(3, size)
    factors = [(torch.randn(size), torch.randn(size), torch.rand(3), torch.tensor(k)) for k in (2, 0)]
    dense = sum(torch.nn.functional.one_hot(k, 3)[:, None] * g + w[:, None] * merged for merged, g, w, k in factors)
    reference = torch.nn.Parameter(param.clone())
    optimizer = torch.optim.AdamW([reference], **OPTIONS)
    optimizer.state[reference] = {"step": torch.tensor(4.0), "exp_avg": first.clone(), "exp_avg_sq": second.clone()}
    reference.grad = dense
    optimizer.step()
    cpu_adamw.adamw_factored(param, first, second, factors, step=5, **OPTIONS)
    assert_close(param, reference)
    assert_close(first, optimizer.state[reference]["exp_avg"])
    assert_close(second, optimizer.state[reference]["exp_avg_sq"])


def test_golden_trajectory(golden: dict[str, Any], golden_head: dict[str, Tensor], released_head: Any) -> None:
    """Ten steps from the released head give the official losses."""
    head = head_from_released(released_head, HEADS)
    optimizer = head_optimizer(head, lr=1e-3)
    losses = []
    for step in range(len(golden["trajectory"]["losses"])):
        inputs = (golden_head[f"input.{name}"] for name in ("video", "text", "labels"))
        loss = training_loss(head, *inputs, LOGIT_SCALE, draws=draws(golden, step)).total
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_close(torch.stack(losses), torch.tensor(golden["trajectory"]["losses"]), "trajectory")


@pytest.mark.heavy
def test_state_passes_between_both_optimizers() -> None:
    """A run may change optimisers between any two steps, in both directions, with the same result."""
    mine, other = make_heads()
    ours, theirs = head_optimizer(mine, **OPTIONS), torch.optim.AdamW(other.parameters(), **OPTIONS)
    for step in range(2):
        for head, optimizer in ((mine, ours), (other, theirs)):
            optimizer.zero_grad()
            backward(head, step)
            optimizer.step()
    saved_ours, saved_theirs = copy.deepcopy(ours.state_dict()), copy.deepcopy(theirs.state_dict())
    assert saved_ours["param_groups"] == saved_theirs["param_groups"]
    assert saved_ours["state"].keys() == saved_theirs["state"].keys()
    del ours
    gc.collect()
    swapped_ours, swapped_theirs = head_optimizer(other, 1.0), torch.optim.AdamW(mine.parameters(), 1.0)
    swapped_ours.load_state_dict(saved_theirs)
    swapped_theirs.load_state_dict(saved_ours)
    for head, optimizer in ((other, swapped_ours), (mine, swapped_theirs)):
        optimizer.zero_grad()
        backward(head, 5)
        optimizer.step()
    assert_same_parameters(mine, other)


def test_foreign_optimizers_get_dense_gradients() -> None:
    """Without a head_optimizer, after its deletion, and for a copy of the head, ``weight.grad`` is set as usual."""
    head, untouched = make_heads()
    optimizer = head_optimizer(head, 1e-3)
    clone = copy.deepcopy(head)
    for each in (head, untouched, clone):
        backward(each, 1)
    assert [weights_of(each)[0].weight.grad is None for each in (head, untouched, clone)] == [True, False, False]
    del optimizer
    gc.collect()
    backward(head, 1)
    assert_close(weights_of(head)[0].weight.grad, weights_of(untouched)[0].weight.grad, "exact")


def test_a_copied_optimizer_takes_dense_gradients() -> None:
    """Copying a head with its optimiser gives an independent pair, with the same state."""
    head, _ = make_heads()
    optimizer = head_optimizer(head, **OPTIONS)
    backward(head, 0)
    optimizer.step()
    optimizer.zero_grad()
    clone, copied = copy.deepcopy((head, optimizer))
    for each, its_optimizer in ((head, optimizer), (clone, copied)):
        backward(each, 1)
        its_optimizer.step()
    assert_same_parameters(head, clone)


def test_two_forward_passes_before_one_backward() -> None:
    """Losses of several micro-batches may be summed before backward: every pass keeps its own factors."""
    mine, other = make_heads()
    optimizer = head_optimizer(mine, 1e-3)
    for head in (mine, other):
        frames, classes = torch.ones(2, 3, WIDTH), torch.eye(4, WIDTH)
        first = stream_logits(head, frames, classes, Draws([0, 1], [-0.6, 2.4]))[1].square().sum()
        second = stream_logits(head, 2 * frames, classes, Draws([3, 1], [1.2, 9.6]))[0].square().sum()
        (first + second).backward()
    for a, b in zip(weights_of(mine), weights_of(other), strict=True):
        optimizer.collectors[a.weight].densify()
        assert_close(a.weight.grad, b.weight.grad)


@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_clipping_includes_the_factored_gradients(passes: int, max_norm: float) -> None:
    """The norm from dot products is the dense one, and the updates after clipping agree."""
    mine, other = make_heads()
    ours, theirs = head_optimizer(mine, **OPTIONS), torch.optim.AdamW(other.parameters(), **OPTIONS)
    for i in range(passes):
        backward(mine, i)
        backward(other, i)
    expected = torch.nn.utils.clip_grad_norm_(other.parameters(), max_norm)
    assert_close(ours.clip_grad_norm_(max_norm), expected)
    assert_close(ours.gradient_norm(), expected.clamp(max=max_norm))
    ours.step()
    theirs.step()
    assert_same_parameters(mine, other)


@pytest.mark.parametrize("explicitly", [False, True])
def test_grad_scaler_unscales_factored_gradients(explicitly: bool) -> None:
    """torch's own GradScaler, with and without a call of unscale_ to clip in between."""
    mine, other = make_heads()
    ours, theirs = head_optimizer(mine, **OPTIONS), torch.optim.AdamW(other.parameters(), **OPTIONS)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(2):
        ours.zero_grad()
        theirs.zero_grad()
        backward(mine, step, scaler.get_scale())
        backward(other, step)
        scaler.scale(torch.zeros(()))
        if explicitly:
            scaler.unscale_(ours)
            ours.clip_grad_norm_(0.1)
            torch.nn.utils.clip_grad_norm_(other.parameters(), 0.1)
        scaler.step(ours)
        scaler.update()
        theirs.step()
    assert_same_parameters(mine, other)


def test_grad_scaler_skips_a_step_whose_factors_overflowed() -> None:
    """An infinity in the rows alone skips the step and lowers the scale."""
    mine, untouched = make_heads()
    optimizer = head_optimizer(mine, **OPTIONS)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))
    backward(mine, 0)
    optimizer.collectors[weights_of(mine)[1].weight].factors[0].rows[1, 7] = float("inf")
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0
    for a, b in zip(mine.parameters(), untouched.parameters(), strict=True):
        assert_close(a, b, "exact")


def test_mixed_precision_steps() -> None:
    """Under bfloat16 autocast the factors come in the parameters' dtype, and steps stay near the dense ones."""
    mine, other = make_heads()
    ours, theirs = head_optimizer(mine, **OPTIONS), torch.optim.AdamW(other.parameters(), **OPTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        backward(mine, 0)
        backward(other, 0)
    assert optimizer_rows(ours)[0].dtype == torch.float32
    ours.step()
    theirs.step()
    assert_same_parameters(mine, other)


def optimizer_rows(optimizer: Any) -> list[Tensor]:
    return [factor.rows for collector in optimizer.collectors.values() for factor in collector.factors]


def test_groups_schedulers_and_zero_grad() -> None:
    """Extra groups keep their own rate, schedulers see the groups that were given, zero_grad forgets factors."""
    head, _ = make_heads()
    scale = torch.nn.Parameter(torch.ones(()))
    optimizer = head_optimizer(head, 1e-2, extra_groups=[{"params": [scale], "lr": 1e-3}])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda _: 0.5, lambda _: 0.25])
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3, 2.5e-4]
    scale.square().backward()
    backward(head, 0)
    optimizer.step()
    scheduler.step()
    assert scale.item() < 1
    assert len(optimizer_rows(optimizer)) == 2
    optimizer.zero_grad()
    assert not optimizer_rows(optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [len(list(head.parameters())), 1]
    before = copy.deepcopy(head.state_dict())
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())


@pytest.mark.heavy
def test_compiled_steps_give_the_optimizer_dense_gradients() -> None:
    """Under torch.compile gradients are dense, and head_optimizer takes those as well."""
    mine, other = make_heads()
    ours, theirs = head_optimizer(mine, **OPTIONS), torch.optim.AdamW(other.parameters(), **OPTIONS)
    frames, classes, labels = torch.randn(2, 3, WIDTH), torch.randn(4, WIDTH), torch.tensor([0, 2])
    experts, temperatures = torch.tensor([1, 3]), torch.tensor([0.6, -2.4])

    def loss(head: VideoHead) -> Tensor:
        return training_loss(head, frames, classes, labels, 10.0, draws=Draws(experts, temperatures)).total

    torch.compile(loss, fullgraph=True, backend="aot_eager")(mine).backward()
    loss(other).backward()
    ours.step()
    theirs.step()
    assert_same_parameters(mine, other)


def test_plain_heads_have_nothing_to_factor() -> None:
    """A head without experts is optimised like any module."""
    mine = VideoHead(HeadConfig(WIDTH, 2, 1, 0))
    other = copy.deepcopy(mine)
    ours, theirs = head_optimizer(mine, **OPTIONS), torch.optim.AdamW(other.parameters(), **OPTIONS)
    for head, optimizer in ((mine, ours), (other, theirs)):
        backward(head, 0)
        optimizer.step()
    assert_same_parameters(mine, other)


def test_no_tensor_as_large_as_a_dense_gradient_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """From forward to update, the largest allocation is the two rows, however many experts there are."""
    experts, width = 8, 64
    head = VideoHead(HeadConfig(width, 2, 1, experts))
    optimizer = head_optimizer(head, 1e-3)
    frames, classes = torch.randn(1, 2, width), torch.randn(3, width)
    sizes: list[int] = []

    def recording(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        x = cpu_memory.empty(shape, dtype)
        sizes.append(x.nbytes)
        return x

    for module in (cpu_experts, cpu_adamw):
        monkeypatch.setattr(module, "empty", recording)
    for profiled in (False, True):
        sizes.clear()
        with torch.profiler.profile(profile_memory=profiled) as profiler:
            stream_logits(head, frames, classes, Draws([3], [-9.6]))[1].sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    allocated = [event.cpu_memory_usage for event in profiler.events() or []]
    row = 4 * expert_size(width)
    assert max(sizes) == 2 * row
    assert max(allocated) <= 2 * row < experts * row


def test_bad_settings_are_named() -> None:
    """Out-of-range values, and options of AdamW that are not available, are refused with their names."""
    head, _ = make_heads()
    with pytest.raises(ConfigError, match="betas"):
        head_optimizer(head, 1e-3, betas=(0.9, 1.0))
    with pytest.raises(ConfigError, match="weight_decay"):
        head_optimizer(head, 1e-3, weight_decay=-1.0)
    optimizer = head_optimizer(head, 1e-3)
    with pytest.raises(ConfigError, match="max_norm"):
        optimizer.clip_grad_norm_(0.0)
    with pytest.raises(ConfigError, match="parameters"):
        optimizer.factor(TemporalExperts(WIDTH, 2))
    optimizer.param_groups[0]["amsgrad"] = True
    with pytest.raises(ConfigError, match="amsgrad"):
        optimizer.step()


def test_clipping_takes_no_more_operators_for_more_parameters() -> None:
    """On a GPU each operator costs the host microseconds, and a tower has hundreds of parameters."""

    class Count(TorchDispatchMode):
        operators = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.operators += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for parameters in (2, 20):
        params = [nn.Parameter(torch.randn(3, 4)) for _ in range(parameters)]
        optimizer = HeadAdamW([{"params": params}], lr=1e-3)
        for param in params:
            param.grad = torch.randn_like(param)
        with Count() as count:
            optimizer.clip_grad_norm_(0.1)
        counts.append(count.operators)
        assert_close(
            torch.stack([p.grad.norm() for p in params if p.grad is not None]).norm(), torch.tensor(0.1), "float16"
        )
    assert counts[0] == counts[1]


def test_the_fused_update_serves_a_gpu_and_reads_older_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of checkpoints, on the CPU; only experts, whose update takes the count as a number, keep it there."""
    fused: list[bool] = []
    monkeypatch.setattr("mote_fast.training.optim.adamw.adamw", lambda *_, **options: fused.append(options["fused"]))
    head = VideoHead(HeadConfig(16, 2, 1, 2))
    plain = torch.optim.AdamW(head.parameters(), lr=1e-3)
    for param in head.parameters():
        param.grad = torch.ones_like(param)
    plain.step()
    saved = plain.state_dict()
    with pretended_cuda():
        head.to("cuda")
        optimizer = head_optimizer(head, lr=1e-3)
        optimizer.load_state_dict(saved)
        for param in head.parameters():
            param.grad = None if param in optimizer.collectors else torch.ones_like(param)
        optimizer.step()
        counted = {param in optimizer.collectors: state["step"].device.type for param, state in optimizer.state.items()}
    assert counted == {False: "cuda", True: "cpu"}
    assert fused == [True]
