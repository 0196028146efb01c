"""The video head at inference: stage "head", what folding buys, and the arms that ``inference_scaling`` takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial

import flops
import torch
from harness import OFFICIAL, OURS, Arm, Workload, gemm, measure
from official import OfficialHead, evaluate_views
from rows import Row
from setting import LABELS, Setting
from torch import Tensor, nn

from mote_fast import VideoHead
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import cosine_logits

HEAD = "head, views"
ONCE, TWICE, UNFOLDED = "official, once through", "mote_fast, twice through", "mote_fast, unfolded"
EVERY = (OFFICIAL, ONCE, UNFOLDED, TWICE, OURS)


def head(setting: Setting) -> Iterator[Row]:
    """Logits and pooled features of one view and of a whole video: what evaluation takes both its scores from."""
    config = setting.heads[setting.preset]
    for views in setting.view_counts:
        arms = head_arms(setting, config, views, EVERY, views=views)
        arms.append(gemm(views * setting.frames, config.embed_dim, setting, views))
        yield from measure(Workload("head", HEAD, arms, 40), setting)


def fold(setting: Setting) -> Iterator[Row]:
    """The folded head against the unfolded one, which merges its experts at every call."""
    for name, config in setting.heads.items():
        for views in setting.batches or (1, 8):
            arms = head_arms(setting, config, views, (UNFOLDED, OURS), views=views)
            yield from measure(Workload("fold", f"folding, {name}, views", arms, 60), setting)


def head_arms(
    setting: Setting,
    config: HeadConfig,
    x: int,
    names: Collection[str],
    views: int = 1,
    frames: int = 0,
    classes: int = LABELS,
) -> list[Arm]:
    """Ways to run the head over views of some frames, the setting's by default; ``x`` is what varies."""
    torch.manual_seed(0)
    whole = VideoHead(config, setting.class_rows(LABELS, config.embed_dim)).to(setting.device, setting.dtype).eval()
    folded, theirs = whole.fold(), OfficialHead(whole).eval()
    given = setting.random(views, frames or setting.frames, config.embed_dim)
    rows = setting.class_rows(classes, config.embed_dim)
    once = flops.head(views, given.shape[1], config.embed_dim, config.layers, classes)
    merging = flops.merge(config.embed_dim, config.layers, config.experts)
    ways: dict[str, tuple[Callable[..., Tensor], nn.Module, float]] = {
        OFFICIAL: (lambda *given: evaluate_views(*given)[0], theirs, 2 * (once + merging)),
        ONCE: (_once, theirs, once + merging),
        UNFOLDED: (_once, whole, once + merging),
        TWICE: (_twice, folded, 2 * once),
        OURS: (_once, folded, once),
    }
    arms = []
    for name, (run, model, work) in ways.items():
        moved = sum(each.nbytes for each in (*model.parameters(), given, rows))
        call = torch.no_grad()(partial(run, model, given, rows))
        arms.append(Arm(name, call, x, clips=views, flops=work, nbytes=moved))
    return [arm for arm in arms if arm.name in names]


def _once(model: VideoHead | OfficialHead, frames: Tensor, classes: Tensor) -> Tensor:
    features = model.features(frames, classes) if isinstance(model, VideoHead) else model(frames, classes)
    features.mean(1)
    return cosine_logits(features, classes)


def _twice(model: VideoHead, frames: Tensor, classes: Tensor) -> Tensor:
    model.features(frames, classes).mean(1)
    return model(frames, classes)
