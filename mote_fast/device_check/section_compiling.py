"""Section 1: every kernel variant that later sections use, compiled on the device in several processes, cold."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch

from mote_fast.device_check import expert_cases
from mote_fast.device_check.check import Check, attempt, skipped
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.device_check.expert_cases import VIT_B_16, Precision, Shape
from mote_fast.device_check.optimizer_cases import adamw_inputs, run_adamw
from mote_fast.device_check.section_values import (
    FOR_LAYOUTS,
    OPERATORS,
    SHAPES,
    WITH_PRODUCTS,
    precisions_on,
    tiled,
)
from mote_fast.device_check.tile_choice import TilePair, only_tiles, tile_pairs
from mote_fast.ops.implementations import implementation_for

# Each process has a CUDA context of its own.
PROCESSES, CONTEXT_BYTES = 12, 2**31
# The GPUs whose kernels are known, ahead of time, to need no spills.
COMPILED_AHEAD = ((8, 0), (9, 0), (10, 0))


class Task(NamedTuple):
    """What one process runs at a time: every operator at one shape and precision, or those with products by tiles."""

    shape: Shape
    precision: Precision
    layouts: bool = False
    tiles: TilePair | None = None


class Variant(NamedTuple):
    """A kernel as it was loaded."""

    kernel: str
    registers: int
    spills: int
    shared: int


def checks(setting: CheckSetting) -> Iterator[Check]:
    """Compile by running, then say what each kernel needs."""
    why = setting.why_no_kernels() or ("the interpreter compiles nothing: see make aot" if setting.dry else None)
    if why is not None:
        yield skipped("compilation", why)
        return
    yield from attempt("compilation", lambda: _compile(setting))


def _tasks(setting: CheckSetting) -> list[Task]:
    precisions = precisions_on(setting)
    if setting.quick:
        return [Task(VIT_B_16, precision) for precision in precisions[:2]]
    tasks = [Task(FOR_LAYOUTS, precision, layouts=True) for precision in precisions[:2]]
    tasks += [Task(shape, precision) for shape in SHAPES if shape.tokens for precision in precisions]
    for shape, precision in tiled(setting, precisions):
        pairs = tile_pairs(setting.device, precision.activation.itemsize)
        tasks += [Task(shape, precision, tiles=pair) for pair in pairs]
    return tasks


def _compile(setting: CheckSetting) -> Iterator[Check]:
    tasks = _tasks(setting)
    workers = max(1, min(PROCESSES, len(tasks), os.cpu_count() or 1, setting.memory() // CONTEXT_BYTES))
    found: set[Variant] = set()
    start = time.monotonic()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run_task, task, str(setting.device)): task for task in tasks}
        try:
            for done in as_completed(futures, max(1.0, setting.left - 5)):
                shape, precision, *_ = futures[done]
                yield from attempt(f"{shape.name}, {precision.name}", partial(_take, done, found))
        except TimeoutError:
            undone = sum(not future.done() for future in futures)
            yield skipped("the rest", f"{undone} of {len(tasks)} groups were not compiled when the time ended")
            # What they compile now would slow later sections down.
            running = list(pool._processes.values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.kill()
    seconds = time.monotonic() - start
    yield Check("all variants", "figure", figures={"variants": len(found), "seconds": seconds, "processes": workers})
    for kernel in sorted({variant.kernel for variant in found}):
        yield _summary([variant for variant in found if variant.kernel == kernel], setting)


def _take(future: Future[list[Variant]], found: set[Variant]) -> list[Check]:
    found.update(future.result())
    return []


def _summary(variants: list[Variant], setting: CheckSetting) -> Check:
    figures = {
        "variants": len(variants),
        "registers": max(variant.registers for variant in variants),
        "shared": max(variant.shared for variant in variants),
        "spills": max(variant.spills for variant in variants),
    }
    name = variants[0].kernel
    if torch.cuda.get_device_capability(setting.device) not in COMPILED_AHEAD:
        return Check(name, "figure", figures=figures)
    return Check(name, "pass" if figures["spills"] == 0 else "fail", figures=figures)


def run_task(task: Task, device: str) -> list[Variant]:
    """Run every operator forward and backward, in a process of its own, and return the kernels that were loaded."""
    where = torch.device(device)
    itemsize = task.precision.activation.itemsize
    with nullcontext() if task.tiles is None else only_tiles(task.tiles, where, itemsize):
        for operator in OPERATORS if task.tiles is None else WITH_PRODUCTS:
            given = operator.draw(task.shape, task.precision, where)
            operator.run(given)
            if task.layouts:
                for argument in vars(given):
                    for layout in expert_cases.LAYOUTS:
                        operator.run(expert_cases.laid_out(given, argument, layout))
    if task.tiles is None and task.precision.activation == torch.float32:
        for factors in (1, 2):
            run_adamw(adamw_inputs(task.shape.width, factors, where), implementation_for(where), on_device=False)
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    return loaded_variants()


def loaded_variants() -> list[Variant]:
    """Return every kernel that this process compiled or read from the cache."""
    package = importlib.import_module("mote_fast.kernels")
    found = []
    for module in pkgutil.iter_modules(package.__path__, "mote_fast.kernels."):
        for value in vars(importlib.import_module(module.name)).values():
            for kernels, *_ in getattr(value, "device_caches", {}).values():
                for built in kernels.values():
                    needs = (built.n_regs, built.n_spills, built.metadata.shared)
                    found.append(Variant(built.metadata.name, *needs))
    return found
