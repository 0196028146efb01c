"""The report of ``mote-fast doctor``: the backend chosen for each job on this machine, and why not the others."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass

import torch

from mote_fast.clip.tower_compiler import WORTH_COMPILING
from mote_fast.data.decoding.decode import DEFAULT_BACKEND, available_backends
from mote_fast.data.gpu.decoder_choice import choose_decoder, gpu_decoder
from mote_fast.data.reading_choices import GPU_DECODERS
from mote_fast.model.dtypes import resolve_dtype
from mote_fast.ops.attention import resolve_backend, xformers_problem
from mote_fast.ops.implementations import triton_problem
from mote_fast.ops.products import bfloat16_gain, serving
from mote_fast.runtime.compiling import compiler_problem
from mote_fast.runtime.environment import best_device

_PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "open_clip_torch",
    "timm",
    "transformers",
    "xformers",
    "torchcodec",
    "av",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "safetensors",
    "numpy",
)


@dataclass(frozen=True)
class Choice:
    """The backend chosen for one job, and the reason against each other one."""

    job: str
    chosen: str
    others: dict[str, str]


def survey() -> list[Choice]:
    """Resolve every backend for this machine's best device."""
    return [_decode(), _load(), _attention(), _kernels(), _compile(), _products(), _auto_dtype()]


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the relevant packages; None for a package that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def device_summary() -> str:
    """Describe the default device of models."""
    if best_device() == "cuda":
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu: {platform.machine()}, {torch.get_num_threads()} threads (PyTorch sees no CUDA device)"


def _decode() -> Choice:
    others = {
        name: problem or "for those who choose it; the same frames"
        for name, problem in available_backends().items()
        if name != DEFAULT_BACKEND
    }
    return Choice("decode", DEFAULT_BACKEND, others)


def _load() -> Choice:
    """What decodes videos for the GPU; measured, unless that is known."""
    chosen = choose_decoder("auto", best_device())
    if chosen.name == "cpu" and not chosen.others:
        return Choice("loader", "cpu", {name: _why_no_decoder(name) for name in GPU_DECODERS})
    others = dict(chosen.others)
    if chosen.name != "cpu":
        others["cpu"] = f"for videos that {chosen.name} does not take, in the same batch"
    return Choice("loader", chosen.name, others)


def _why_no_decoder(name: str) -> str:
    return gpu_decoder(name).why_unavailable("gpu") or "for CUDA devices"


def _attention() -> Choice:
    device = best_device()
    dtype = torch.float16 if device == "cuda" else torch.float32
    chosen = resolve_backend(device, dtype)
    if chosen == "sdpa":
        return Choice("attention", "sdpa", {"xformers": xformers_problem(device, dtype) or "not chosen"})
    return Choice("attention", "xformers", {"sdpa": "xformers comes first; both dispatch to the same flash kernels"})


def _kernels() -> Choice:
    if best_device() != "cuda":
        return Choice("kernels", "cpu", {"triton": "its kernels need a CUDA device, and PyTorch sees none"})
    device = torch.device("cuda")
    if (problem := triton_problem(device)) is not None:
        return Choice("kernels", "torch", {"triton": problem})
    return Choice("kernels", "triton", {"torch": "for float64, and where Triton cannot serve"})


def _compile() -> Choice:
    """What ``compile="auto"`` is."""
    if best_device() != "cuda":
        return Choice("compile", "eager", {"compiled": "automatic on CUDA alone; on a CPU compile=True gains little"})
    if (problem := compiler_problem(torch.device("cuda"))) is not None:
        return Choice("compile", "eager", {"compiled": problem})
    return Choice("compile", "compiled", {"eager": f"for one video, and the first {WORTH_COMPILING} frames of many"})


def _products() -> Choice:
    """Who computes float32 products on the CPU; measured, which takes a moment."""
    own = "MKL" if torch.backends.mkl.is_available() else "PyTorch's BLAS"
    found = serving()
    if found.by_onednn:
        return Choice("float32", "oneDNN", {own: f"slower; {found.why}"})
    return Choice("float32", own, {"oneDNN": found.why})


def _auto_dtype() -> Choice:
    """What ``dtype="auto"`` is; measured too."""
    device = best_device()
    gain = bfloat16_gain(torch.device(device))
    if resolve_dtype("auto", device) == torch.bfloat16:
        return Choice("auto dtype", "bfloat16", {"float32": f"exact, but its products take {gain:.1f} times as long"})
    why = f"its products take {1 / gain:.1f} times as long as those in float32" if gain else f"not on this {device}"
    return Choice("auto dtype", "float32", {"bfloat16": why})
