"""Float32 matrix products on the CPU through oneDNN, where this machine computes them faster that way.

``F.linear`` in float32 goes to the BLAS that PyTorch was built with, which on some processors leaves half of their
speed unused: MKL runs AVX2 code on AMD's, oneDNN, in the same wheel, AVX-512. No public switch of PyTorch chooses
oneDNN for exact float32 (``torch.set_float32_matmul_precision("medium")`` does, and then computes in bfloat16 on
processors with AMX), so this file calls a private operator, and no other file does. At the first use in a process a
check of the operator's results and a measurement, some 50 ms together, decide for good which of the two serves.

The operator takes weights as they lie. Weights in its own blocked form are 5% faster for many rows (two times for 8),
but are a second copy of the model, which has to follow every change of the first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

# (rows, width, height) of the products that decide, smallest first. A call of oneDNN's operator costs 10 us more, so
# that products below the first size, which takes a core 50 us, are left to F.linear.
SIZES = ((16, 512, 512), (64, 768, 768), (256, 768, 768))
TURNS = 5
# The same for comparing dtypes: on a CPU as above; a GPU takes longer to start a product than to compute one so small.
DTYPE_SIZE, DTYPE_SIZE_ON_GPU = SIZES[-1], (4096, 1024, 4096)
# oneDNN serves where it is clearly faster at the largest size, so that processes on a machine where the two tie choose
# alike, and no slower at the smaller ones.
CLEARLY = 1.1
# Its error may be this many times that of F.linear: the two sum in other orders.
ERROR = 4.0

# oneDNN compiles code for every number of rows, half a megabyte and a millisecond each, and keeps a thousand of them.
# Numbers up to this one, which is what the text tower runs at once, are rounded up to sixteen for each power of two:
# the lengths of prompts make many, and those of the image tower's batches above it are few.
ROUNDED_UP_TO = 1024

# The second is the form within nn.MultiheadAttention.
_PLAIN = (nn.Linear, NonDynamicallyQuantizableLinear)


class Serving(NamedTuple):
    """Which library serves float32 products: oneDNN from ``least`` multiplications on (infinite: none), and why."""

    least: float
    why: str

    @property
    def by_onednn(self) -> bool:
        """Whether oneDNN serves any product."""
        return self.least < math.inf


# Empty until the first use. A dictionary, because threads that measure at once then agree on the first's result
# without a lock, which a fork could leave held.
_DECIDED: dict[str, Serving] = {}
_GAINS: dict[str, float] = {}


def serving() -> Serving:
    """Return what serves float32 products on the CPU in this process; the first call measures."""
    return _DECIDED.get("float32") or _DECIDED.setdefault("float32", _decide())


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
    return _onednn(x, weight, bias) if _served(x, weight, bias) else F.linear(x, weight, bias)


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


def _served(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN computes this product."""
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or x.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(each.requires_grad for each in tensors):
        return False
    if torch.compiler.is_compiling():
        # Nothing is measured while a graph is made, and what is exported must consist of plain products.
        known = _DECIDED.get("float32")
        return not torch.compiler.is_exporting() and known is not None and known.by_onednn
    if torch.jit.is_tracing() or not torch.backends.mkldnn.enabled:  # pyright: ignore[reportPrivateImportUsage]
        return False
    # Such as tensors without memory, which shapes are computed with.
    if any(type(each) not in (Tensor, nn.Parameter) for each in tensors):
        return False
    return x.numel() * weight.shape[0] >= serving().least


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if torch.compiler.is_compiling():
        return _in_graph(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    return _operator(_evened(flat), weight, bias)[: flat.shape[0]].view(*x.shape[:-1], -1)


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
# decides here.
@torch.library.custom_op("mote_fast::linear", mutates_args=(), device_types="cpu")
def _in_graph(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(x, weight, bias)


@_in_graph.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    del bias
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@torch.no_grad()
def _decide() -> Serving:
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return Serving(math.inf, "this PyTorch has no oneDNN, or it is switched off")
    generator = torch.Generator().manual_seed(0)
    random = partial(torch.randn, generator=generator, dtype=torch.float32, device="cpu")
    ratios: list[float] = []
    try:
        for rows, width, height in SIZES:
            x, weight, bias = random(rows, width), random(height, width), random(height)
            # In float64 the largest would take longer than all else.
            if rows < SIZES[-1][0] and not _is_exact(x, weight, bias):
                return Serving(math.inf, "oneDNN does not compute float32 exactly here")
            ratios.append(_ratio(partial(F.linear, x, weight, bias), partial(_onednn, x, weight, bias)))
    except (AttributeError, RuntimeError, TypeError) as error:
        return Serving(math.inf, f"this PyTorch does not have the operator of oneDNN as expected: {error}")
    found = ", ".join(
        f"{ratio:.2f} at {rows} x {width} x {height}"
        for ratio, (rows, width, height) in zip(ratios, SIZES, strict=True)
    )
    least = math.inf
    for ratio, size in zip(reversed(ratios), reversed(SIZES), strict=True):
        if ratio < (CLEARLY if size == SIZES[-1] else 1):
            break
        least = float(math.prod(size))
    return Serving(least, f"time of F.linear over that of oneDNN: {found}")


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
    rows, width, height = DTYPE_SIZE if device.type == "cpu" else DTYPE_SIZE_ON_GPU
    like = {"dtype": torch.float32, "device": device}
    x, weight = torch.ones(rows, width, **like), torch.ones(height, width, **like)
    wait = (lambda: None) if device.type == "cpu" else partial(torch.get_device_module(device).synchronize, device)

    def run(left: Tensor, right: Tensor) -> None:
        linear(left, right)
        wait()

    try:
        return _ratio(partial(run, x, weight), partial(run, x.bfloat16(), weight.bfloat16()))
    except RuntimeError:
        return 0.0


def _ratio(plain: Callable[[], object], other: Callable[[], object]) -> float:
    """Time of ``plain`` over that of ``other``, the shortest of some turns: other work only ever lengthens one."""
    shortest = [math.inf, math.inf]
    # The first turn prepares both, and does not count.
    for turn in range(1 + TURNS):
        for at, call in enumerate((plain, other)):
            start = time.perf_counter()
            call()
            if turn:
                shortest[at] = min(shortest[at], time.perf_counter() - start)
    return shortest[0] / shortest[1]
