"""Softmax attention behind one call, carried by xformers or by PyTorch; the two share their flash kernels on CUDA."""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.errors import BackendError

BACKENDS = ("xformers", "sdpa")


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """Scaled dot-product attention.

    Args:
        q: [B, Tq, H, h], h the width of a head.
        k: [B, Tk, H, h].
        v: [B, Tk, H, h].
        mask: additive, broadcastable to [B, H, Tq, Tk], in the dtype of ``q``; None attends everywhere.
        backend: "xformers", "sdpa", or "auto": xformers where its operator runs on this device and dtype.

    Returns:
        [B, Tq, H, h].

    Raises:
        BackendError: a backend is unknown, or was forced and cannot run.
    """
    if resolve_backend(q.device.type, q.dtype, mask is not None, backend) == "xformers":
        memory_efficient_attention = importlib.import_module("xformers.ops").memory_efficient_attention
        return memory_efficient_attention(q, k, v)
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.transpose(1, 2)


def resolve_backend(device: str, dtype: torch.dtype, masked: bool = False, backend: str = "auto") -> str:
    """Say which backend ``attend`` uses for these arguments.

    Masked attention goes to SDPA in auto mode: xformers wants masks in padded memory, and the masked calls
    are the short text prompts, where nothing is gained.
    """
    if backend not in (*BACKENDS, "auto"):
        raise BackendError(f"attention backend {backend!r} is unknown; choose auto, xformers or sdpa")
    if backend == "sdpa":
        return "sdpa"
    if backend == "auto" and (masked or device == "cpu"):
        # Its operators are CUDA ones, and importing the package just to hear that costs a second at start.
        return "sdpa"
    problem = "it takes no mask here" if masked else xformers_problem(device, dtype)
    if problem is None:
        return "xformers"
    if backend == "xformers":
        raise BackendError(f"attention backend xformers cannot serve: {problem}; use backend='auto' or 'sdpa'")
    return "sdpa"


@functools.cache
def xformers_problem(device: str, dtype: torch.dtype = torch.float32) -> str | None:
    """Return None where xformers' attention operator runs, else the reason it does not, found by running it once."""
    try:
        ops = importlib.import_module("xformers.ops")
    except (ImportError, OSError) as error:
        return f"xformers does not import: {error}"
    probe = torch.zeros(1, 8, 1, 64, device=device, dtype=dtype)
    try:
        ops.memory_efficient_attention(probe, probe, probe)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        # The message lists every operator with its reasons, most of them the same one.
        reasons = dict.fromkeys(line.strip() for line in str(error).splitlines() if "supported:" in line)
        why = "; ".join(reasons) or str(error).splitlines()[0]
        return f"its operator does not run on {device} in {dtype} ({why})"
    return None
