"""Times of calls on a device, without the host's share where a CUDA graph can replay them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

# Calls before a capture or a measurement, on the stream that captures: allocations, handles, compilation.
WARMUP = 3


class Times(NamedTuple):
    """Microseconds of one call: median, 20th and 80th percentile."""

    median: float
    p20: float
    p80: float


def summarised(microseconds: list[float]) -> Times:
    """Return the median and two percentiles."""
    fifths = statistics.quantiles(microseconds, n=5, method="inclusive") if len(microseconds) > 1 else microseconds * 4
    return Times(statistics.median(microseconds), fifths[0], fifths[3])


def captured(call: Callable[[], Any], device: torch.device) -> torch.cuda.CUDAGraph:
    """Capture a call in a CUDA graph, after warming it up on a side stream; its inputs must stay where they are."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARMUP):
            call()
    torch.cuda.current_stream(device).wait_stream(side)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    torch.cuda.synchronize(device)
    return graph


def device_times(call: Callable[[], Any], device: torch.device, samples: int, *, cold: bool = True) -> Times:
    """Time what a call does on the device, by events around it; on the CPU by the clock.

    Args:
        call: may be a graph's ``replay``. Where it launches more slowly than the device works, that is measured.
        device: where it works.
        samples: calls that are measured, after ``WARMUP`` others.
        cold: overwrite the second-level cache before each call.
    """
    for _ in range(WARMUP):
        call()
    if device.type != "cuda":
        return summarised([_clocked(call) for _ in range(samples)])
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    flush = torch.empty(2 * max(cache, 2**22) // 4, dtype=torch.int32, device=device) if cold else None
    pairs = []
    # Everything is queued before anything is waited for, so that the host's time hides behind the flushes.
    for _ in range(samples):
        if flush is not None:
            flush.zero_()
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        call()
        last.record()
        pairs.append((first, last))
    torch.cuda.synchronize(device)
    return summarised([1e3 * first.elapsed_time(last) for first, last in pairs])


def host_times(call: Callable[[], Any], device: torch.device, samples: int) -> Times:
    """Time what the host spends on a call that queues work: the device is idle at its start, and not waited for."""
    for _ in range(WARMUP):
        call()
    found = []
    for _ in range(samples):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(_clocked(call))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return summarised(found)


def _clocked(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - start)
