"""Float32 products through oneDNN: exact, with exact gradients, chosen once for a process, plain in graphs."""

from __future__ import annotations

import copy
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from mote_fast import VideoClassifier
from mote_fast.ops import products
from mote_fast.ops.products import Serving, affine, linear, run_linear, serving
from tests.tolerances import assert_close

try:
    products._operator(torch.zeros(1, 1), torch.zeros(1, 1), None)
    MISSING = ""
except (AttributeError, RuntimeError, TypeError) as error:
    MISSING = str(error)
needs_onednn = pytest.mark.skipif(bool(MISSING), reason=f"PyTorch without oneDNN's operator: {MISSING}")


def give_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it serve products of every size."""
    monkeypatch.setattr(products, "_DECIDED", {"float32": Serving(True, "asked for")})
    monkeypatch.setattr(products, "LEAST_ROWS", 0)
    monkeypatch.setattr(products, "LEAST", 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Give every product to oneDNN that may go there, and collect the shapes of its weights."""
    found: list[tuple[int, ...]] = []
    original = products._operator

    def recorded(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found.append(tuple(weight.shape))
        return original(x, weight, bias)

    monkeypatch.setattr(products, "_operator", recorded)
    give_to_onednn(monkeypatch)
    return found


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not computed yet."""
    monkeypatch.setattr(products, "_DECIDED", {})


def error_of(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm())


@needs_onednn
@torch.no_grad()
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lead=st.lists(st.integers(1, 40), min_size=0, max_size=3),
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    has_bias=st.booleans(),
    layout=st.sampled_from(("plain", "transposed", "rows of more")),
    scale=st.sampled_from((1e-20, 1.0, 1e20)),
    seed=st.integers(0, 1 << 20),
)
@example(lead=[8, 197], width=768, height=768, has_bias=True, layout="plain", scale=1.0, seed=0)
def test_error_is_that_of_float32(
    calls: list[tuple[int, ...]],
    lead: list[int],
    width: int,
    height: int,
    has_bias: bool,
    layout: str,
    scale: float,
    seed: int,
) -> None:
    """Against float64 at most four times the error of F.linear, whatever the shapes, layouts and magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(*lead, width, generator=generator)
    weight, bias = torch.randn(height, width, generator=generator), scale * torch.randn(height, generator=generator)
    if layout == "transposed":
        weight, x = weight.t().contiguous().t(), x.mT.contiguous().mT if x.ndim > 1 else x
    elif layout == "rows of more":
        weight, x = torch.cat((weight, weight))[height:], torch.stack((x, x), -1)[..., 1]
    added = bias if has_bias else None
    found, plain = linear(x, weight, added), F.linear(x, weight, added)
    assert calls[-1] == (height, width)
    assert found.shape == plain.shape
    expected = F.linear(x.double(), weight.double(), None if added is None else added.double())
    # Short sums may happen to be rounded without any error.
    allowed = products.ERROR * max(error_of(plain, expected), 2**-24 * float(expected.norm()))
    assert error_of(found, expected) <= allowed


@needs_onednn
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lead=st.lists(st.integers(1, 40), min_size=0, max_size=3),
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    needed=st.sampled_from([(True, True), (True, False), (False, True)]),
    has_bias=st.booleans(),
    transposed=st.booleans(),
    scale=st.sampled_from((1e-15, 1.0, 1e15)),
    seed=st.integers(0, 1 << 20),
)
@example(lead=[4, 49], width=768, height=768, needed=(True, True), has_bias=True, transposed=False, scale=1.0, seed=0)
def test_error_of_gradients_is_that_of_float32(
    calls: list[tuple[int, ...]],
    lead: list[int],
    width: int,
    height: int,
    needed: tuple[bool, bool],
    has_bias: bool,
    transposed: bool,
    scale: float,
    seed: int,
) -> None:
    """The result and every gradient asked for: against float64 at most four times the error of F.linear."""
    generator = torch.Generator().manual_seed(seed)
    x, weight, bias, dy = (
        torch.randn(*shape, generator=generator)
        for shape in ((*lead, width), (height, width), (height,), (*lead, height))
    )
    # Gradients come as they lie, of expanded sums also.
    dy = scale * (dy.mT.contiguous().mT if transposed and dy.ndim > 1 else dy[..., :1].expand_as(dy))

    def run(product: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        leaves = [each.to(dtype, copy=True) for each in (x, weight, bias)[: 2 + has_bias]]
        wanted = [leaf.requires_grad_() for leaf, need in zip(leaves, (*needed, True), strict=False) if need]
        y = product(*leaves)
        return [y.detach(), *torch.autograd.grad(y, wanted, dy.to(dtype))]

    before = len(calls)
    found, plain, expected = run(linear, torch.float32), run(F.linear, torch.float32), run(F.linear, torch.float64)
    assert len(calls) - before == 1 + sum(needed)
    for ours, theirs, truth in zip(found, plain, expected, strict=True):
        assert ours.shape == theirs.shape
        assert error_of(ours, truth) <= products.ERROR * max(error_of(theirs, truth), 2**-24 * float(truth.norm()))


@needs_onednn
def test_gradients_of_gradients(calls: list[tuple[int, ...]]) -> None:
    """The backward products have gradients too, as those of F.linear have."""
    leaves = [torch.randn(shape).requires_grad_() for shape in ((5, 8), (16, 8), (16,))]

    def penalty(product: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(product(*leaves).pow(2).sum(), leaves, create_graph=True)
        total = torch.stack([each.pow(2).sum() for each in first]).sum()
        return torch.autograd.grad(total, leaves)

    expected = penalty(F.linear)
    assert not calls
    for ours, theirs in zip(penalty(linear), expected, strict=True):
        assert_close(ours, theirs)
    assert len(calls) > 3


@needs_onednn
def test_nothing_is_kept_for_gradients_that_nobody_needs(calls: list[tuple[int, ...]]) -> None:
    """A frozen weight keeps no input, an input without gradient no weight, and neither is copied."""
    kept: list[Tensor] = []
    x, weight = torch.randn(5, 8), torch.randn(16, 8)
    for of_x, of_weight in ((True, False), (False, True), (True, True)):
        leaves = x.detach().requires_grad_(of_x), weight.detach().requires_grad_(of_weight)
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
            linear(*leaves)
        expected = [each for each, other in ((x, of_weight), (weight, of_x)) if other]
        assert [each.data_ptr() for each in kept] == [each.data_ptr() for each in expected]
    assert len(calls) == 3


@needs_onednn
def test_weights_changed_before_backward_are_refused(calls: list[tuple[int, ...]]) -> None:
    """Their gradient would be that of other weights; F.linear refuses them too."""
    x, layer = torch.randn(5, 8, requires_grad=True), nn.Linear(8, 16)
    y = run_linear(layer, x).sum()
    with torch.no_grad():
        layer.weight.mul_(2)
    with pytest.raises(RuntimeError, match="inplace operation"):
        y.backward()
    assert calls


@needs_onednn
def test_backward_in_autocast_is_that_of_its_forward(calls: list[tuple[int, ...]]) -> None:
    """A float32 forward has float32 gradients, wherever backward is called."""
    x, layer = torch.randn(5, 8, requires_grad=True), nn.Linear(8, 16)
    y = run_linear(layer, x).sum()
    with torch.autocast("cpu", torch.bfloat16):
        y.backward()
    assert x.grad is not None
    assert_close(x.grad, layer.weight.detach().sum(0).expand(5, 8))
    assert calls


@needs_onednn
@torch.no_grad()
@pytest.mark.parametrize(("width", "height"), [(64, 256), (256, 64), (64, 64)])
@pytest.mark.parametrize("by_onednn", [True, False])
def test_scales(monkeypatch: pytest.MonkeyPatch, width: int, height: int, by_onednn: bool) -> None:
    """Both scales, in each library, leave the arguments alone."""
    give_to_onednn(monkeypatch)
    monkeypatch.setattr(products, "_DECIDED", {"float32": Serving(by_onednn, "")})
    x, weight, bias = torch.randn(3, 5, width), torch.randn(height, width), torch.randn(height)
    kept = x.clone(), weight.clone(), bias.clone()
    found = affine(x, weight, bias, 1.7, 0.3)
    assert_close(found, (1.7 * (x.double() @ weight.double().t()) + 0.3 * bias).float())
    assert all(torch.equal(*pair) for pair in zip(kept, (x, weight, bias), strict=True))


@needs_onednn
def test_small_products_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of the operator costs more than a small product gains."""
    monkeypatch.setattr(products, "_DECIDED", {"float32": Serving(True, "")})
    monkeypatch.setattr(products, "_onednn", lambda x, *_: x.new_full((1,), 7.0))
    for rows, width, height, served in (
        (16, 512, 512, True),
        (16, 512, 511, False),
        (15, 2048, 2048, False),
        (4096, 32, 32, True),
        (0, 8, 8, False),
        (8, 0, 8, False),
    ):
        found = linear(torch.ones(rows, width), torch.ones(height, width)).shape
        assert found == ((1,) if served else (rows, height))


def test_few_numbers_of_rows_occur() -> None:
    """Each costs memory that is never given back; rounding up costs at most one row in sixteen."""
    evened = {rows: len(products._evened(torch.empty(rows, 1))) for rows in range(1, products.ROUNDED_UP_TO + 1)}
    assert len(set(evened.values())) <= 16 * 7
    assert all(rows <= found <= rows * 17 / 16 for rows, found in evened.items())
    assert not products._evened(torch.full((33, 1), math.nan))[33:].any()


def in_autocast(x: Tensor, layer: nn.Linear) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return run_linear(layer, x)


def switched_off(x: Tensor, layer: nn.Linear) -> Tensor:
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        return run_linear(layer, x)


def traced(x: Tensor, layer: nn.Linear) -> Tensor:
    weight, bias = layer.weight.detach(), layer.bias.detach()
    with torch.no_grad():
        graph: Any = torch.jit.trace(lambda values: linear(values, weight, bias), (x,), check_trace=False)
        return graph(x)


def hooked(x: Tensor, layer: nn.Linear) -> Tensor:
    handle = layer.register_forward_hook(lambda *seen: seen[2].clone())
    with torch.no_grad():
        found = run_linear(layer, x)
    handle.remove()
    return found


def under_vmap(x: Tensor, layer: nn.Linear) -> Tensor:
    return torch.func.vmap(lambda row: run_linear(layer, row))(x)


def under_func_grad(x: Tensor, layer: nn.Linear) -> Tensor:
    return torch.func.vjp(lambda values: run_linear(layer, values), x)[0]


def forward_mode(x: Tensor, layer: nn.Linear) -> Tensor:
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        given = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        found = torch.autograd.forward_ad.unpack_dual(run_linear(layer, given))
        assert found.tangent is not None
        assert_close(found.tangent, layer.weight.sum(1).expand(4, 16))
        return found.primal.clone()


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning", "ignore:TF32:UserWarning"
)
@pytest.mark.parametrize("way", [in_autocast, switched_off, traced, hooked, under_vmap, under_func_grad, forward_mode])
def test_where_products_stay_plain(calls: list[tuple[int, ...]], way: Callable[..., Tensor]) -> None:
    """In autocast, with oneDNN switched off, in a traced graph, where a hook wants to see it, and in torch.func."""
    x, layer = torch.randn(4, 8), nn.Linear(8, 16)
    found = way(x, layer)
    expected = layer(x)
    assert found.dtype == (torch.bfloat16 if way is in_autocast else torch.float32)
    assert_close(found.float(), expected, "bfloat16" if way is in_autocast else "exact")
    assert not calls


@torch.no_grad()
def test_other_tensors_stay_plain(calls: list[tuple[int, ...]]) -> None:
    """Other dtypes and devices, and tensors without memory; another kind of layer runs itself."""
    for like in (torch.empty(0).double(), torch.empty(0).bfloat16(), torch.empty(0, device="meta")):
        assert linear(like.new_ones(4, 8), like.new_ones(16, 8)).shape == (4, 16)
    with FakeTensorMode():
        assert linear(torch.ones(4, 8), torch.ones(16, 8)).shape == (4, 16)

    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    layer, x = Doubled(8, 16), torch.randn(4, 8)
    assert torch.equal(run_linear(layer, x), layer(x))
    assert not calls


@needs_onednn
@torch.no_grad()
def test_exported_graphs_are_plain(calls: list[tuple[int, ...]]) -> None:
    """What leaves for another machine has no private operator in it."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            return run_linear(self.inner, x)

    for strict in (False, True):
        program = torch.export.export(Layer(), (torch.randn(4, 8),), strict=strict)
        assert "mkldnn" not in str(program.graph)
    assert not calls


@needs_onednn
@torch.no_grad()
def test_changed_weights_are_seen_at_once(calls: list[tuple[int, ...]], tiny: VideoClassifier) -> None:
    """No form of the weights is kept: changes in place, load_state_dict, copies and conversions are all seen."""
    pixels = torch.randn(2, 3, tiny.clip.image_size, tiny.clip.image_size)
    before = tiny.clip.encode_frames(pixels)
    state, twin = copy.deepcopy(tiny.state_dict()), copy.deepcopy(tiny)
    for block in tiny.clip.model.visual.transformer.resblocks:
        block.mlp.c_fc.weight.mul_(1.5)
        block.attn.in_proj_weight.mul_(0.5)
    changed = tiny.clip.encode_frames(pixels)
    assert not torch.allclose(changed, before, atol=1e-3)
    assert torch.equal(twin.clip.encode_frames(pixels), before)
    twin.load_state_dict(tiny.state_dict())
    assert torch.equal(twin.clip.encode_frames(pixels), changed)
    tiny.load_state_dict(state)
    assert torch.equal(tiny.to(torch.float64).to(torch.float32).clip.encode_frames(pixels), before)
    assert calls
    assert state.keys() == tiny.state_dict().keys()


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Compiled code is kept per function: tests must not share it."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@needs_onednn
@pytest.mark.heavy
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("trained", [False, True])
def test_a_compiled_tower_takes_the_same_products(
    monkeypatch: pytest.MonkeyPatch, tiny: VideoClassifier, trained: bool
) -> None:
    """One graph for all batch sizes, with our operator in it; training computes the gradients of the eager tower."""
    give_to_onednn(monkeypatch)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    towers, weights = tiny.clip, [*tiny.clip.model.visual.parameters()]
    tiny.compile(backend=backend, fullgraph=True)
    for frames in (2, 5):
        pixels = torch.randn(frames, 3, towers.image_size, towers.image_size)
        with torch.set_grad_enabled(trained):
            found, expected = towers.encode_frames(pixels), towers.run_vision_tower(pixels)
            assert_close(found, expected.detach())
        if trained:
            pairs = (torch.autograd.grad(each.square().sum(), weights) for each in (found, expected))
            for ours, theirs in zip(*pairs, strict=True):
                assert_close(ours, theirs, "dot product")
    assert len(graphs) == 1
    assert "mote_fast.linear" in graphs[0].print_readable(print_output=False)


@needs_onednn
@pytest.mark.heavy
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)])
def test_compiled_gradients(calls: list[tuple[int, ...]], needed: tuple[bool, bool]) -> None:
    """Traced by autograd ahead of time, forward and backward are our operator, for any number of rows."""
    weight, bias = torch.randn(16, 8), torch.randn(16, requires_grad=True)
    weight.requires_grad_(needed[1])
    compiled = torch.compile(linear, backend="aot_eager", fullgraph=True, dynamic=True)
    for rows in (5, 7):
        x = torch.randn(3, rows, 8, requires_grad=needed[0])
        leaves = [each for each in (x, weight, bias) if each.requires_grad]
        before = len(calls)
        found = torch.autograd.grad(compiled(x, weight, bias).square().sum(), leaves)
        assert len(calls) - before == 1 + sum(needed)
        expected = torch.autograd.grad(F.linear(x, weight, bias).square().sum(), leaves)
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours, theirs)


@pytest.mark.usefixtures("undecided")
def test_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that measure at once agree on one answer, and nothing is measured again."""
    together = threading.Barrier(4)
    answers = iter([Serving(number % 2 == 0, "") for number in range(4)])

    def slow() -> Serving:
        together.wait(60)
        return next(answers)

    monkeypatch.setattr(products, "_decide", slow)
    found: list[Serving] = []
    threads = [threading.Thread(target=lambda: found.append(serving())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1
    assert serving() is found[0]


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize(("ratio", "expected"), [(2.03, True), (1.7, True), (1.1, False), (1.0, False), (0.5, False)])
def test_the_measurement_decides(monkeypatch: pytest.MonkeyPatch, ratio: float, expected: bool) -> None:
    """A tie is PyTorch's; nothing but the answer depends on the measurement."""
    monkeypatch.setattr(products, "onednn_problem", lambda: "")
    monkeypatch.setattr(products, "_ratio", lambda *_: ratio)
    assert serving().by_onednn == expected
    assert f"{ratio:.2f}" in serving().why


@pytest.mark.parametrize("disturbed", [(0, 0), (0, 1), (1, 1)])
def test_a_busy_machine_changes_no_answer(monkeypatch: pytest.MonkeyPatch, disturbed: tuple[int, int]) -> None:
    """Nor two rounds whose every turn is interrupted, nor most turns of the others."""
    now = 0.0

    def call(which: int, seconds: float) -> Callable[[], None]:
        turns = iter(range(-1, 1000))

        def run() -> None:
            nonlocal now
            turn = next(turns)
            interrupted = which in disturbed if turn < 2 * products.TURNS else turn % products.TURNS
            now += seconds + (9.0 if interrupted else 0.0)

        return run

    assert products._ratio(call(0, 2.0), call(1, 1.0), lambda: now) == pytest.approx(2.0)


@needs_onednn
@pytest.mark.skipif(sys.platform == "win32", reason="a thread's time is too coarse there")
@pytest.mark.usefixtures("undecided")
def test_a_busy_machine_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this thread's processor time counts, in which it has no helpers to wait for; they are there again after."""
    seen: list[tuple[object, int]] = []
    monkeypatch.setattr(products, "_GAINS", {})
    monkeypatch.setattr(products, "_ratio", lambda *given: seen.append((given[2], torch.get_num_threads())) or 2.0)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert serving().by_onednn
        assert products.bfloat16_gain(torch.device("cpu")) == 2.0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [(time.thread_time, 1)] * 2


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize(
    "operator",
    [
        lambda x, weight, bias: F.linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16()).float(),
        lambda x, weight, bias: F.linear(x, weight, bias) * math.nan,
        lambda x, weight, bias: F.linear(x, weight),
        lambda x, weight, bias: torch.ops.mkldnn.no_such_operator(x),
        lambda x, weight, bias: torch.ops.aten.mm(x),
    ],
    ids=["in bfloat16", "NaN", "without bias", "missing", "changed"],
)
def test_an_operator_that_fails_its_check_serves_nothing(
    monkeypatch: pytest.MonkeyPatch, operator: Callable[..., Tensor]
) -> None:
    """An operator that is inexact, gone or changed leaves the products to PyTorch, and says why."""
    monkeypatch.setattr(products, "_onednn", operator)
    found = serving()
    assert not found.by_onednn
    assert "oneDNN" in found.why
    weight, bias = torch.randn(512, 512), torch.randn(512)
    x = torch.randn(64, 512)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))


@pytest.mark.usefixtures("undecided")
def test_measuring_changes_no_state() -> None:
    """The global random numbers, the default dtype and gradients are as before."""
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        serving()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
