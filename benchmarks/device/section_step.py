"""Section 9: the whole training step of the paper's models, with random towers, and where its time goes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from device.predicted_times import predicted_step_ms
from device.training_case import METHOD, trainable
from mote_fast.data.loading.batch import Batch
from mote_fast.device_check.check import Check, attempt, skipped
from mote_fast.device_check.check_setting import CheckSetting
from mote_fast.device_check.timing import device_times

FRAMES, CLASSES = 8, 400
HALF, COMPILED = "half precision", "half precision, compiled"
# Seconds that must be left for compiling the tower for evaluation.
COMPILE_SECONDS = 30.0
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
# Launches and waits of the host, by the names that the profiler gives them.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


class Preset(NamedTuple):
    """An architecture and its batch per GPU in the paper; MiB that a card needs to try a quarter of it."""

    name: str
    batch: int
    memory: int


PRESETS = (Preset("ViT-B-16", 64, 14_000), Preset("ViT-L-14", 48, 30_000))
DRY_PRESETS = (Preset("ViT-test", 2, 0),)


def checks(setting: CheckSetting) -> Iterator[Check]:
    """Each preset while there is time; ViT-L/14 on large cards alone."""
    for preset in setting.size(PRESETS, DRY_PRESETS):
        if setting.memory() < preset.memory * 2**20:
            yield skipped(preset.name, f"needs about {preset.memory / 1024:.0f} GiB")
        elif setting.left < setting.size(20, 0):
            yield skipped(preset.name, "no time is left")
        else:
            yield from attempt(preset.name, partial(_preset, setting, preset))
            _free(setting)


class Step:
    """One training step in bfloat16 (float16 where there is none), on pixels that are on the device already."""

    def __init__(self, setting: CheckSetting, preset: Preset, batch: int, compile: bool) -> None:
        from mote_fast.model.checkpoint import create_model
        from mote_fast.training.build import build_optimizer
        from mote_fast.training.config.sections import OptimConfig
        from mote_fast.training.step import Arithmetic, Objective, draws_of_step, train_step

        torch.manual_seed(0)
        self.device, self.batch = setting.device, batch
        frames = setting.size(FRAMES, 2)
        self.model = trainable(create_model(preset.name, frames=frames, device=setting.device))
        size, width = self.model.clip.image_size, self.model.clip.embed_dim
        self.model.head.set_train_class_features(torch.randn(CLASSES, width, device=self.device))
        self._objective = Objective(self.model, METHOD, compile=compile)
        self._optimizer = build_optimizer(self.model, OptimConfig())
        bf16 = not setting.on_gpu or torch.cuda.is_bf16_supported(False)
        self._arithmetic = Arithmetic("bf16" if bf16 else "fp16", self.device)
        pixels = torch.randn(batch, frames, 3, size, size, device=self.device)
        labels = torch.randint(CLASSES, (batch,), device=self.device)
        self._given = Batch(pixels, labels, torch.arange(batch))
        self._draws = draws_of_step(self.model.head, METHOD, 1, seed=0, step=0, rank=0)
        self._train_step = train_step

    def __call__(self) -> None:
        self._train_step(self._objective, self._optimizer, iter([self._given]), self._draws, self._arithmetic)

    def parts(self) -> dict[str, Callable[[], Any]]:
        """The parts of a step, each alone; a later one begins with what the one before it left."""
        left: dict[str, Tensor] = {}

        def tower() -> None:
            with self._arithmetic.autocast():
                left["features"] = self._objective.encode(self._given.pixels.flatten(0, 1))

        def head() -> None:
            from mote_fast.training.losses import training_loss

            given = left["features"].unflatten(0, self._given.pixels.shape[:2])
            classes = self.model.head.train_class_features
            assert classes is not None
            with self._arithmetic.autocast():
                scale = self.model.clip.logit_scale
                left["loss"] = training_loss(
                    self.model.head, given, classes, self._given.labels, scale, METHOD, self._draws[0].to(self.device)
                ).total

        def update() -> None:
            self._optimizer.step()
            self._optimizer.zero_grad()

        return {"tower": tower, "head": head, "backward": lambda: left["loss"].backward(), "optimiser": update}


def _preset(setting: CheckSetting, preset: Preset) -> Iterator[Check]:
    """Eager, compiled, and what else there is to compare while there is time; one step is in memory at a time."""
    found: dict[str, float] = {}
    yield from _eager(setting, preset, found)
    _free(setting)
    if setting.left < setting.size(25, 0):
        yield skipped(f"{preset.name}, compiled", "no time is left")
    else:
        yield from attempt(f"{preset.name}, compiled", lambda: _compiled(setting, preset, found))
        _free(setting)
    if setting.left > setting.size(10, 0):
        yield from attempt(f"{preset.name}, others", lambda: _others(setting, preset, found))


def _free(setting: CheckSetting) -> None:
    gc.collect()
    if setting.on_gpu:
        torch.cuda.empty_cache()


def _eager(setting: CheckSetting, preset: Preset, found: dict[str, float]) -> Iterator[Check]:
    """The largest batch that fits of the paper's, its half and its quarter; ``found`` takes it, and a step's flops."""
    step, batch, memory = _largest(setting, preset)
    with FlopCounterMode(display=False) as counter:
        step()
    found |= {"batch": batch, "flops": counter.get_total_flops()}
    name = f"{preset.name}, {batch} clips, eager"
    yield _rates(setting, name, step, found, memory)
    yield from attempt(f"{name}, parts", lambda: _parts(setting, name, step))
    yield from attempt(f"{name}, profile", lambda: _profile(setting, name, step))


def _compiled(setting: CheckSetting, preset: Preset, found: dict[str, float]) -> Iterator[Check]:
    if setting.on_gpu:
        torch.cuda.reset_peak_memory_stats(setting.device)
    step = Step(setting, preset, int(found["batch"]), compile=setting.on_gpu)
    name = f"{preset.name}, {step.batch} clips, compiled"
    start = time.monotonic()
    step()
    if setting.on_gpu:
        torch.cuda.synchronize(setting.device)
    yield Check(f"{name}, first step", "figure", figures={"s": time.monotonic() - start})
    step()
    yield _rates(setting, name, step, found, _peak(setting))
    yield from attempt(f"{name}, profile", lambda: _profile(setting, name, step))


def _others(setting: CheckSetting, preset: Preset, found: dict[str, float]) -> Iterator[Check]:
    """Each backend of attention by force, and evaluation in three precisions."""
    step = Step(setting, preset, int(found["batch"]), compile=False)
    yield from attempt(f"{preset.name}, evaluation", lambda: _evaluation(setting, preset, step))
    for backend, which in BACKENDS.items() if setting.on_gpu else ():

        def forced(which: SDPBackend = which) -> None:
            with sdpa_kernel(which):
                step()

        name = f"{preset.name}, {step.batch} clips, eager, {backend} attention"
        yield from attempt(name, partial(_rates, setting, name, forced, found))


def _largest(setting: CheckSetting, preset: Preset) -> tuple[Step, int, float]:
    """The step of the largest batch that fits, the batch, and the peak of its memory in GiB."""
    for batch in (preset.batch, preset.batch // 2):
        try:
            return _tried(setting, preset, batch)
        except torch.OutOfMemoryError:
            gc.collect()
            torch.cuda.empty_cache()
    return _tried(setting, preset, max(1, preset.batch // 4))


def _tried(setting: CheckSetting, preset: Preset, batch: int) -> tuple[Step, int, float]:
    if setting.on_gpu:
        torch.cuda.reset_peak_memory_stats(setting.device)
    step = Step(setting, preset, batch, compile=False)
    # The second one has the optimiser's moments.
    step()
    step()
    return step, batch, _peak(setting)


def _peak(setting: CheckSetting) -> float:
    """The most memory that was allocated, GiB; 0 where nobody counts it."""
    return torch.cuda.max_memory_allocated(setting.device) / 2**30 if setting.on_gpu else 0.0


def _rates(
    setting: CheckSetting, name: str, step: Callable[[], Any], found: dict[str, float], memory: float = 0.0
) -> Check:
    architecture = name.split(",")[0]
    times = device_times(step, setting.device, setting.size(5, 1), cold=False)
    batch, flops = found["batch"], found["flops"]
    figures: dict[str, Any] = {"ms": times.median / 1e3, "clips/s": batch / times.median * 1e6}
    figures["TFLOP/s"] = flops / times.median / 1e6
    predicted = predicted_step_ms(architecture, int(batch))
    if predicted is not None:
        figures |= {"predicted ms, eager, H100": predicted, "measured / predicted": times.median / 1e3 / predicted}
    if product := setting.figure("product TFLOP/s"):
        figures["MFU % of measured product"] = 100 * figures["TFLOP/s"] / product
    if memory:
        figures["peak GiB"] = memory
    return Check(name, "figure", figures=figures)


def _parts(setting: CheckSetting, name: str, step: Step) -> Check:
    """Milliseconds of each part, by events between them; the host is ahead of the device where they add up."""
    parts = step.parts()
    if not setting.on_gpu:
        for part in parts.values():
            part()
        return skipped(f"{name}, parts", "only tried")
    found: dict[str, list[float]] = {part: [] for part in parts}
    for _ in range(3):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(parts) + 1)]
        events[0].record()
        for event, part in zip(events[1:], parts.values(), strict=True):
            part()
            event.record()
        torch.cuda.synchronize(setting.device)
        for at, part in enumerate(parts):
            found[part].append(events[at].elapsed_time(events[at + 1]))
    return Check(f"{name}, parts", "figure", figures={f"{part} ms": sorted(ms)[1] for part, ms in found.items()})


def _profile(setting: CheckSetting, name: str, step: Step) -> Iterator[Check]:
    """How busy the device is, how often the host waits, and the kernels that take most."""
    if not setting.on_gpu:
        yield skipped(f"{name}, profile", "the profiler's kernels are the GPU's")
        return
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize(setting.device)
    events = profile.events() or []
    kernels = sorted((each.time_range.start, each.time_range.end, each.name) for each in events if _on_device(each))
    if not kernels:
        yield skipped(f"{name}, profile", "the profiler saw no kernels")
        return
    busy, last = 0.0, kernels[0][0]
    for start, end, _ in kernels:
        busy += max(0.0, end - max(start, last))
        last = max(last, end)
    whole = last - kernels[0][0]
    # The last of them is this function's own.
    waits = sum(each.name in WAITS for each in events) - 1
    figures = {"busy ms": busy / 1e3, "idle ms": (whole - busy) / 1e3, "kernels": len(kernels), "host waits": waits}
    yield Check(f"{name}, profile", "figure", figures=figures)
    totals: dict[str, float] = {}
    for start, end, kernel in kernels:
        totals[kernel] = totals.get(kernel, 0.0) + end - start
    for kernel, us in sorted(totals.items(), key=lambda item: -item[1])[:12]:
        share = {"ms": us / 1e3, "% of busy": 100 * us / busy}
        yield Check(f"{name}, {kernel[:80]}", "figure", figures=share)


def _on_device(event: Any) -> bool:
    return str(event.device_type).endswith("CUDA")


def _evaluation(setting: CheckSetting, preset: Preset, step: Step) -> Iterator[Check]:
    """The image tower without gradients: float32 as it is, TensorFloat32, half precision, and that compiled."""
    model = step.model.clip
    size, batch = model.image_size, setting.size(256, 2)
    frames = setting.size(FRAMES, 2)
    pixels = torch.randn(batch, 3, size, size, device=setting.device)
    before = torch.get_float32_matmul_precision()
    ways = {"float32": ("highest", False), "TensorFloat32": ("high", False), HALF: ("high", True)}
    bf16 = not setting.on_gpu or torch.cuda.is_bf16_supported(False)
    dtype = torch.bfloat16 if bf16 else torch.float16
    rates: dict[str, float] = {}

    def rate(way: str, half: bool) -> Check:
        @torch.no_grad()
        def encode() -> Tensor:
            with torch.autocast(setting.device.type, dtype, enabled=half):
                return model.encode_frames(pixels)

        start = time.monotonic()
        encode()
        if setting.on_gpu:
            torch.cuda.synchronize(setting.device)
        first = time.monotonic() - start
        times = device_times(encode, setting.device, setting.size(5, 1), cold=False)
        rates[way] = batch / times.median * 1e6
        figures = {"ms": times.median / 1e3, "frames/s": rates[way], "clips/s": rates[way] / frames, "first s": first}
        if way == COMPILED and rates[COMPILED] > rates[HALF]:
            # What ``WORTH_COMPILING`` predicts.
            figures["won back after frames"] = first / (1 / rates[HALF] - 1 / rates[COMPILED])
        return Check(f"{preset.name}, evaluation, {way}", "figure", figures=figures)

    for way, (precision, half) in ways.items():
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision == "high"
        yield rate(way, half)
    if setting.left > setting.size(COMPILE_SECONDS, 0):
        model.compiler.compile(backend=setting.size("inductor", "eager"))
        yield rate(COMPILED, True)
        model.compiler.choose(False)
    else:
        yield skipped(f"{preset.name}, evaluation, {COMPILED}", "no time is left")
    torch.set_float32_matmul_precision(before)
