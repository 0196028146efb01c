"""Softmax attention through one function, by xformers or PyTorch; the two share their flash kernels on CUDA."""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.errors import BackendError, one_line

BACKENDS = ("xformers", "sdpa")


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, backend: str = "sdpa") -> Tensor:
    """Scaled dot-product attention; nothing is probed here, so that it can be compiled.

    Args:
        q: [B, Tq, H, h], h the width of a head.
        k: [B, Tk, H, h].
        v: [B, Tk, H, h].
        mask: additive, broadcastable to [B, H, Tq, Tk], in the dtype of ``q``; None attends everywhere.
        backend: "sdpa" or "xformers", what ``resolve_backend`` returned. SDPA takes masked attention in either case:
            xformers wants masks in padded memory, and the masked calls are the short text prompts. So does compiled
            code.

    Returns:
        [B, Tq, H, h].
    """
    # A compiled graph would break at xformers' operator; PyTorch's runs the same kernels, and the graph stays whole.
    if backend == "xformers" and mask is None and not torch.compiler.is_compiling():
        return _xformers_attention(q, k, v)
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.transpose(1, 2)


def resolve_backend(device: str, dtype: torch.dtype, backend: str = "auto") -> str:
    """Return the backend for ``attend`` on a device and dtype; called when towers are built or moved.

    Args:
        device: "cpu" or "cuda".
        dtype: of queries, keys and values.
        backend: "xformers", "sdpa", or "auto": xformers where its operator runs.

    Raises:
        BackendError: a backend is unknown, or was forced and cannot run.
    """
    if backend not in (*BACKENDS, "auto"):
        raise BackendError(f"attention backend {backend!r} is unknown; choose auto, xformers or sdpa")
    if backend == "sdpa":
        return "sdpa"
    if backend == "auto" and device == "cpu":
        # xformers has CUDA operators only, and importing the package to find that out costs a second at start.
        return "sdpa"
    problem = xformers_problem(device, dtype)
    if problem is None:
        return "xformers"
    if backend == "xformers":
        raise BackendError(f"attention backend xformers cannot serve: {problem}; use backend='auto' or 'sdpa'")
    return "sdpa"


def _xformers_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    import xformers.ops

    return xformers.ops.memory_efficient_attention(q, k, v)


@functools.cache
def xformers_problem(device: str, dtype: torch.dtype = torch.float32) -> str | None:
    """Return None if xformers' attention operator runs, else the reason why not, found by running it once."""
    try:
        ops = importlib.import_module("xformers.ops")
    # A wheel built for another PyTorch fails with whatever its code meets first.
    except Exception as error:
        return f"xformers does not import: {one_line(error)}"
    probe = torch.zeros(1, 8, 1, 64, device=device, dtype=dtype)
    try:
        ops.memory_efficient_attention(probe, probe, probe)
    except Exception as error:
        # The message lists every operator with its reasons, most of which are the same.
        reasons = dict.fromkeys(line.strip() for line in str(error).splitlines() if "supported:" in line)
        why = "; ".join(reasons) or one_line(error)
        return f"its operator does not run on {device} in {dtype} ({why})"
    return None
