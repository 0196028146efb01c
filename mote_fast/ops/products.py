"""Float32 matrix products on the CPU through oneDNN, where this machine computes them faster that way.

``F.linear`` in float32 goes to the BLAS that PyTorch was built with, which on some processors leaves half of their
speed unused: MKL runs AVX2 code on AMD's, oneDNN, in the same wheel, AVX-512. No public switch of PyTorch chooses
oneDNN for exact float32 (``torch.set_float32_matmul_precision("medium")`` does, and then computes in bfloat16 on
processors with AMX), so this file calls a private operator, and no other file does. At the first use in a process a
check of the operator's results and a measurement, under half a second together, decide for good which of the two
serves: one answer of two, far from the noise of a busy machine, so that the processes of a machine compute the same.
Which products the answer holds for is fixed. Training keeps the answer in its checkpoints
(``training/one_library.py``).

The operator takes weights as they lie. Weights in its own blocked form are 5% faster for many rows (two times for 8),
but are a second copy of the model, which has to follow every change of the first.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

# (rows, width, height): products whose results are compared with float64, and the one that is timed.
CHECKED = ((16, 512, 512), (64, 768, 768))
TIMED = (128, 768, 768)
# A GPU takes longer to start a product than to compute one so small.
TIMED_ON_GPU = (4096, 1024, 4096)
# The answer is the median of rounds, each the shortest of some turns: one in which other programs held the memory or
# the GPU all along does not count, in either direction.
ROUNDS, TURNS = 5, 6
# Products on the CPU are timed in one thread, by what they take of its processor's time. At a load of 14 to 26 on two
# cores a tie came out as 0.83 to 1.42 on the wall's clock; and with two threads, of which one waits for the other more
# often in MKL, as 1.8 even on this one. Windows counts this time in steps longer than a product.
_PROCESSOR_TIME = time.perf_counter if sys.platform == "win32" else time.thread_time
# The two libraries run the same instructions, and tie, or do not: then the ratio is 1.7 to 2. This lies between.
CLEARLY = 1.4
# oneDNN serves from this many rows and multiplications on. For fewer, its call and its passes over the weights outweigh
# what it gains (0.8 times the speed of F.linear for two rows, measured); at both bounds it was 1.4 times as fast where
# the timed product was 2.0 times. Where that is no more than CLEARLY, 1.05 is left: nowhere does it lose.
LEAST_ROWS, LEAST = 16, 1 << 22
# Its error may be this many times that of F.linear: the two sum in other orders.
ERROR = 4.0

# oneDNN compiles code for every number of rows, half a megabyte and a millisecond each, and keeps a thousand of them.
# Numbers up to this one, which is what the text tower runs at once, are rounded up to sixteen for each power of two:
# the lengths of prompts make many, and those of the image tower's batches above it are few.
ROUNDED_UP_TO = 1024

# The second is the form within nn.MultiheadAttention.
_PLAIN = (nn.Linear, NonDynamicallyQuantizableLinear)


class Serving(NamedTuple):
    """Whether oneDNN serves float32 products, those that are large enough, and why."""

    by_onednn: bool
    why: str


# Empty until the first use. A dictionary, because threads that measure at once then agree on the first's result
# without a lock, which a fork could leave held.
_DECIDED: dict[str, Serving] = {}
_GAINS: dict[str, float] = {}


def serving() -> Serving:
    """Return what serves float32 products on the CPU in this process; the first call measures."""
    return _DECIDED.get("float32") or _DECIDED.setdefault("float32", _decide())


def serve(choice: Serving) -> None:
    """Let a choice made elsewhere hold in this process from now on, such as that of another process of a run."""
    _DECIDED["float32"] = choice


def bfloat16_gain(device: torch.device) -> float:
    """Time of a float32 product, by ``linear``, over that of the same in bfloat16; 0 where a device cannot.

    The first call for a device in a process measures.
    """
    name = str(device)
    return _GAINS[name] if name in _GAINS else _GAINS.setdefault(name, _measured_gain(device))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias`` as ``F.linear`` does, through oneDNN where that is faster.

    Args:
        x: [..., k].
        weight: [m, k].
        bias: [m], or None.

    Returns:
        [..., m].
    """
    if _small(x, weight):
        return F.linear(x, weight, bias)
    if _served(x, weight, bias):
        return _onednn(x, weight, bias)
    if _served(x, weight, bias, with_gradients=True):
        return _Differentiable.apply(x, weight, bias)
    return F.linear(x, weight, bias)


def affine(x: Tensor, weight: Tensor, bias: Tensor, alpha: float, beta: float) -> Tensor:
    """Return ``alpha * x @ weight.T + beta * bias``, [..., m]; the scales cost little or nothing.

    Args:
        x: [..., k].
        weight: [m, k].
        bias: [m].
        alpha: scale of the product, not zero.
        beta: scale of the bias.
    """
    if not _served(x, weight, bias):
        flat = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight.t(), alpha=alpha, beta=beta)
        return flat.view(*x.shape[:-1], -1)
    # The operator takes no scale: that of the narrower side is one pass over less memory.
    if weight.shape[0] >= weight.shape[1]:
        return _onednn(x * alpha, weight, bias * beta)
    return _onednn(x, weight, bias * (beta / alpha)).mul_(alpha)


@torch.no_grad()
def product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write ``left @ right`` to ``out``, which has no gradients, and return it.

    Args:
        left: [n, k].
        right: [k, m].
        out: [n, m].
    """
    if _served(left, right.t(), None):
        return out.copy_(_onednn(left, right.t(), None))
    return torch.mm(left, right, out=out)


@torch.no_grad()
def scaled_product(bias: Tensor, left: Tensor, right: Tensor, alpha: float, beta: float, out: Tensor) -> Tensor:
    """Write ``alpha * left @ right + beta * bias`` to ``out``, as ``product`` does.

    Args:
        bias: one that broadcasts to [n, m].
        left: [n, k].
        right: [k, m].
        alpha: scale of the product.
        beta: scale of the bias; with 0 its values do not matter.
        out: [n, m].
    """
    if not _served(left, right.t(), None):
        return torch.addmm(bias, left, right, beta=beta, alpha=alpha, out=out)
    found = _onednn(left, right.t(), None)
    return torch.add(bias * beta, found, alpha=alpha, out=out) if beta else torch.mul(found, alpha, out=out)


def run_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a linear layer as ``linear`` does; one of another kind, or with hooks, runs itself."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    if isinstance(layer, nn.Linear) and type(layer) in _PLAIN and not hooked:
        return linear(x, layer.weight, layer.bias)
    return layer(x)


def even_rows(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x [N, k]``, with zero rows appended if its product with ``weight [m, k]`` would append them.

    Products in a row append them once then.
    """
    return x if torch.compiler.is_compiling() or not _served(x, weight, None) else _evened(x)


def _small(x: Tensor, weight: Tensor) -> bool:
    """Whether a product is too small for oneDNN: the check that costs least, but not of the sizes in a graph."""
    in_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return not in_graph and x.numel() * weight.shape[0] < LEAST


def _served(x: Tensor, weight: Tensor, bias: Tensor | None, *, with_gradients: bool = False) -> bool:
    """Whether oneDNN computes this product, which needs gradients, or none."""
    known = _DECIDED.get("float32")
    if known is not None and not known.by_onednn:
        # The questions below take a small product as long as a tenth of it.
        return False
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or x.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if with_gradients != (torch.is_grad_enabled() and any(each.requires_grad for each in tensors)):
        return False
    if torch.compiler.is_compiling():
        # Nothing is measured while a graph is made, and what is exported must consist of plain products.
        return not torch.compiler.is_exporting() and known is not None
    if torch.jit.is_tracing() or not torch.backends.mkldnn.enabled:  # pyright: ignore[reportPrivateImportUsage]
        return False
    if transformed():
        return False
    # Such as tensors without memory, which shapes are computed with.
    if any(type(each) not in (Tensor, nn.Parameter) for each in tensors):
        return False
    large = x.numel() >= LEAST_ROWS * x.shape[-1] and x.numel() * weight.shape[0] >= LEAST
    return large and serving().by_onednn


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is active, for which operators of our own have no rules."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if torch.compiler.is_compiling():
        return _in_graph(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    return _operator(_evened(flat), weight, bias)[: flat.shape[0]].view(*x.shape[:-1], -1)


class _Differentiable(torch.autograd.Function):
    """``linear`` with gradients: two more products, of the transposes as they lie; nothing is copied or kept longer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (dy,), (x, weight) = grad_outputs, ctx.saved_tensors
        rows = dy.reshape(-1, dy.shape[-1])
        # Through ``linear``, so that they have gradients in turn; in float32, as the forward pass was.
        with torch.autocast("cpu", enabled=False):
            of_x = None if weight is None else linear(dy, weight.t())
            of_weight = None if x is None else linear(rows.t(), x.reshape(-1, x.shape[-1]).t())
        return of_x, of_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


def _operator(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")


def _evened(x: Tensor) -> Tensor:
    """Return ``x [N, k]`` with zero rows appended, as many as ``ROUNDED_UP_TO`` says."""
    rows = x.shape[0]
    step = 1 << max(0, rows.bit_length() - 5)
    if rows > ROUNDED_UP_TO or rows % step == 0:
        return x
    return F.pad(x, (0, 0, 0, -rows % step))


# The compiler knows the private operator too, but takes constant weights alone. The size, which a graph leaves open,
# decides here. Not in operators.py: it would import this file, which calls the operator, and so would import it.
@torch.library.custom_op("mote_fast::linear", mutates_args=(), device_types="cpu")
def _in_graph(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(x, weight, bias)


@_in_graph.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    del bias
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _decide() -> Serving:
    if problem := onednn_problem():
        return Serving(False, problem)
    rows, width, height = TIMED
    ones = partial(torch.ones, dtype=torch.float32, device="cpu")
    x, weight = ones(rows, width), ones(height, width)
    with torch.no_grad(), _one_thread():
        ratio = _ratio(partial(F.linear, x, weight), partial(_onednn, x, weight, None), _PROCESSOR_TIME)
    return Serving(
        ratio >= CLEARLY, f"time of F.linear over that of oneDNN: {ratio:.2f} at {rows} x {width} x {height}"
    )


@torch.no_grad()
def onednn_problem() -> str:
    """Return why oneDNN cannot serve exact float32 products here, an empty text if it can."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):  # pyright: ignore[reportPrivateImportUsage]
        return "this PyTorch has no oneDNN, or it is switched off"
    generator = torch.Generator().manual_seed(0)
    random = partial(torch.randn, generator=generator, dtype=torch.float32, device="cpu")
    try:
        exact = all(
            _is_exact(random(rows, width), random(height, width), random(height)) for rows, width, height in CHECKED
        )
    except (AttributeError, RuntimeError, TypeError) as error:
        return f"this PyTorch does not have the operator of oneDNN as expected: {error}"
    return "" if exact else "oneDNN does not compute float32 exactly here"


def _is_exact(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether the operator's error is that of float32: with a bias, and without one for weights that lie transposed."""
    for right, added in ((weight, bias), (weight.t().contiguous().t(), None)):
        expected = F.linear(x.double(), right.double(), None if added is None else added.double())
        allowed, found = ((call(x, right, added).double() - expected).norm() for call in (F.linear, _onednn))
        # Written so that NaN fails.
        if not bool(found <= ERROR * allowed):
            return False
    return True


@torch.no_grad()
def _measured_gain(device: torch.device) -> float:
    rows, width, height = TIMED if device.type == "cpu" else TIMED_ON_GPU
    like = {"dtype": torch.float32, "device": device}
    x, weight = torch.ones(rows, width, **like), torch.ones(height, width, **like)
    on_cpu = device.type == "cpu"
    wait = (lambda: None) if on_cpu else partial(torch.get_device_module(device).synchronize, device)

    def run(left: Tensor, right: Tensor) -> None:
        linear(left, right)
        wait()

    calls = partial(run, x, weight), partial(run, x.bfloat16(), weight.bfloat16())
    try:
        if not on_cpu:
            return _ratio(*calls, time.perf_counter)
        with _one_thread():
            return _ratio(*calls, _PROCESSOR_TIME)
    except RuntimeError:
        return 0.0


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let this thread's products have no helpers for now."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _ratio(plain: Callable[[], object], other: Callable[[], object], clock: Callable[[], float]) -> float:
    """Time of ``plain`` over that of ``other``, by a clock that counts seconds."""
    plain()
    other()
    ratios = []
    for _ in range(ROUNDS):
        shortest = [math.inf, math.inf]
        for _ in range(TURNS):
            for at, call in enumerate((plain, other)):
                start = clock()
                call()
                shortest[at] = min(shortest[at], clock() - start)
        ratios.append(shortest[0] / shortest[1])
    return median(ratios)
