"""Section 0: the device, the versions, and the peaks that all percentages refer to."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Iterator

import torch

from mote_fast.device_check.check import Check, attempt, holds
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.device_check.timing import captured, device_times
from mote_fast.ops.implementations import LEAST_CAPABILITY
from mote_fast.version import __version__

PACKAGES = ("torch", "triton", "numpy", "open_clip_torch", "av", "torchcodec", "xformers", "nvidia-dali-cuda130")

# What nvidia-smi tells beyond CUDA's own properties.
QUERY = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,mig.mode.current"


def checks(setting: CheckSetting) -> Iterator[Check]:
    """Describe the machine, then measure copies and products."""
    yield Check("versions", "figure", figures=_versions())
    yield from attempt("device", lambda: _device(setting))
    if setting.on_gpu:
        yield from attempt("driver and clocks", lambda: _clocks(setting))
    yield from attempt("copy bandwidth", lambda: _copy(setting))
    yield from attempt("16-bit product", lambda: _product(setting))


def _versions() -> dict[str, str]:
    found = {"mote_fast": __version__, "python": platform.python_version(), "system": platform.platform(terse=True)}
    found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _device(setting: CheckSetting) -> Iterator[Check]:
    if not setting.on_gpu:
        yield Check("device", "figure", figures={"name": platform.machine(), "threads": torch.get_num_threads()})
        return
    found = torch.cuda.get_device_properties(setting.device)
    capability = (found.major, found.minor)
    free, total = torch.cuda.mem_get_info(setting.device)
    figures = {
        "name": found.name,
        "devices": torch.cuda.device_count(),
        "capability": f"{found.major}.{found.minor}",
        "processors": found.multi_processor_count,
        "memory GiB": total / 2**30,
        "free GiB": free / 2**30,
        "L2 MiB": found.L2_cache_size / 2**20,
        # Newer PyTorch has these two.
        "shared memory": getattr(found, "shared_memory_per_block_optin", None),
        "clock kHz": getattr(found, "clock_rate", None),
    }
    yield Check("device", "figure", figures=figures)
    yield holds("PyTorch was built for this device", _built_for(capability), " ".join(torch.cuda.get_arch_list()))
    if capability < LEAST_CAPABILITY:
        yield Check("Triton's kernels", "skip", note="compute capability below 8.0: other code serves")


def _built_for(capability: tuple[int, int]) -> bool:
    """Whether the wheel has machine code of this generation, or PTX that can be compiled for it."""
    if torch.version.hip is not None:
        return True
    known = [name.split("_")[1].rstrip("af") for name in torch.cuda.get_arch_list()]
    parts = [(int(number[:-1]), int(number[-1])) for number in known]
    return any(part[0] == capability[0] and part <= capability for part in parts) or any(
        name.startswith("compute_") for name in torch.cuda.get_arch_list()
    )


def _clocks(setting: CheckSetting) -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("driver and clocks", "skip", note="nvidia-smi is not installed")
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader", "-i", str(setting.device.index or 0)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15)
    if done.returncode:
        return Check("driver and clocks", "skip", note=f"nvidia-smi: {(done.stderr or done.stdout).strip()[:200]}")
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return Check("driver and clocks", "figure", figures=dict(zip(QUERY.split(","), values, strict=False)))


def _copy(setting: CheckSetting) -> Check:
    """Reading and writing count both."""
    size = setting.size(min(2**30, setting.memory() // 4), 2**20) // 4 * 4
    source = torch.ones(size // 4, dtype=torch.int32, device=setting.device)
    target = torch.empty_like(source)
    times = device_times(lambda: target.copy_(source), setting.device, setting.size(20, 3), cold=False)
    figures = {"copy GB/s": 2 * size / times.median / 1e3, "bytes": size}
    return Check("copy bandwidth", "figure", figures=figures)


def _product(setting: CheckSetting) -> Check:
    side = setting.size(8192 if setting.memory() > 2**30 else 4096, 128)
    # Before Ampere, 16-bit products are float16's.
    half = not setting.on_gpu or torch.cuda.get_device_capability(setting.device) >= LEAST_CAPABILITY
    dtype = torch.bfloat16 if half else torch.float16
    left, right = torch.randn(2, side, side, device=setting.device, dtype=torch.float32).to(dtype)
    out = torch.empty_like(left)
    call = lambda: torch.mm(left, right, out=out)  # noqa: E731
    if setting.on_gpu:
        call = captured(call, setting.device).replay
    times = device_times(call, setting.device, setting.size(20, 3), cold=False)
    rate = 2 * side**3 / times.median / 1e6
    return Check("16-bit product", "figure", figures={"product TFLOP/s": rate, "side": side, "dtype": str(dtype)[6:]})
