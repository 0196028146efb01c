"""Stages "head" and "train": the video head, at inference and in a training step."""

from __future__ import annotations

import torch
from head_workloads import CLASSES
from head_workloads import FRAMES as TRAINING_FRAMES
from head_workloads import Setting as StepSetting
from head_workloads import step as training_step
from torch import Tensor

from mote_fast import VideoHead
from mote_fast.head.video_head import cosine_logits
from stages import flops
from stages.peaks import gemm
from stages.released import ReleasedHead, evaluate_views
from stages.setting import LABELS, PRESETS, Setting, weight_bytes
from stages.workload import RELEASED, Arm, Workload


def head(setting: Setting) -> list[Workload]:
    """The head on frame features: one view, three, and more."""
    return [inference(setting, views) for views in setting.view_counts]


def head_name(views: int) -> str:
    """The name of the workload over so many views."""
    return f"head, {views} {'view' if views == 1 else 'views'}"


def inference(setting: Setting, views: int) -> Workload:
    """Logits and pooled features of ``views`` views: what zero-shot evaluation takes both its scores from."""
    whole, folded, classes = setting.head, setting.folded.head, setting.classes
    theirs = ReleasedHead(whole).eval()
    frames = setting.random(views, setting.frames, whole.embed_dim)
    once = flops.head(views, setting.frames, whole.embed_dim, whole.layers, LABELS)
    merging = flops.merge(whole.embed_dim, whole.layers, whole.experts)

    def ours(model: VideoHead) -> Tensor:
        features = model.features(frames, classes)
        features.mean(1)
        return cosine_logits(features, classes)

    def ours_twice() -> Tensor:
        folded.features(frames, classes).mean(1)
        return folded(frames, classes)

    def theirs_once() -> Tensor:
        features = theirs(frames, classes)
        features.mean(1)
        return cosine_logits(features, classes)

    def arm(name: str, call, count: float, model: torch.nn.Module) -> Arm:
        moved = weight_bytes(model) + frames.nbytes + classes.nbytes
        return Arm(name, torch.no_grad()(call), views, flops=count, nbytes=moved)

    arms = [
        arm(RELEASED, lambda: evaluate_views(theirs, frames, classes)[0], 2 * (once + merging), theirs),
        arm("released, once through", theirs_once, once + merging, theirs),
        arm("mote_fast, unfolded", lambda: ours(whole), once + merging, whole),
        arm("mote_fast, twice through", ours_twice, 2 * once, folded),
        arm("mote_fast", lambda: ours(folded), once, folded),
        gemm(views * setting.frames, whole.embed_dim, setting.device, setting.dtype),
    ]
    return Workload("head", head_name(views), arms, setting.rounds(40))


def train(setting: Setting) -> list[Workload]:
    """Forward, loss, backward and AdamW of the head; both arms see the same draws."""
    return [_step(setting, batch) for batch in setting.batches or (8,)]


def _step(setting: Setting, batch: int) -> Workload:
    step = StepSetting(PRESETS[setting.preset], batch, setting.device, setting.experts)
    calls = training_step(step)
    width, layers = step.head().embed_dim, setting.head.layers
    # Two streams, backward twice the forward, and merging with its backward.
    work = 2 * 3 * flops.head(batch, TRAINING_FRAMES, width, layers, CLASSES)
    merging = 2 * flops.merge(width, layers, setting.experts)
    arms = [
        # Steps change the weights, so outputs drift apart with rounding; tests compare the steps.
        Arm(RELEASED, calls["eager"], batch, flops=work + merging, tolerance=None),
        Arm("mote_fast", calls["mote_fast"], batch, flops=work + merging, tolerance=None),
        gemm(batch * TRAINING_FRAMES, width, setting.device),
    ]
    note = f"{TRAINING_FRAMES} frames a view, {CLASSES} classes, gradients of the frames included"
    return Workload("train", f"training step, {batch} views", arms, setting.rounds(12), note=note)
