"""Stage "end2end": one video from its file to scores, and what int8 does to the labels it is ranked by."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import official
import torch
from harness import EQUAL, OFFICIAL, OURS, Arm, Workload, measure
from rows import Row
from setting import INT8, LABELS, Setting
from torch import Tensor
from torch.nn import functional as F
from tower import TOLERANCES

from mote_fast import VideoClassifier
from mote_fast.data import probe
from mote_fast.data.views import Views, plan_views
from mote_fast.head.scores import view_scores

VIDEO = "one video"
# Clips of the video and random label sets that rank them: one best label alone says little. With
# random weights the scores of neighbouring ranks nearly touch, so real labels change places less.
CLIPS, LABEL_SETS, TOP = 4, 25, 5
RANKINGS = "int8 against float32, rankings"


def end2end(setting: Setting) -> Iterator[Row]:
    """Score one video, its label set encoded before."""
    arms = video_arms(setting, setting.views)
    for name, (model, seconds) in setting.prepared.items():
        call, tolerance = partial(score, setting, model, setting.views), TOLERANCES.get(name, EQUAL)
        arms.append(Arm(name, call, clips=setting.views.clips, tolerance=tolerance, preparation=seconds))
    yield from measure(Workload("end2end", VIDEO, arms, 3, warmup=1), setting)
    yield from int8_on_labels(setting)


def video_arms(setting: Setting, views: Views, videos: int | None = None) -> list[Arm]:
    """The official recipe and ours over ``videos`` in sequence, or over one if their number is not varied."""
    plan = plan_views(probe(setting.video).num_frames, setting.frames, views)
    wanted = plan.frame_indices[plan.positions].flatten().tolist()
    theirs, towers = official.OfficialHead(setting.model.head).eval(), setting.model.clip

    def baseline() -> Tensor:
        return official.classify(setting.video, wanted, towers, theirs, setting.classes, views.clips)[None]

    calls = {OFFICIAL: baseline, OURS: partial(score, setting, setting.folded, views)}
    count = videos or 1
    return [
        Arm(name, lambda call=call: [call() for _ in range(count)][-1], videos, count * views.clips)
        for name, call in calls.items()
    ]


@torch.no_grad()
def score(setting: Setting, model: VideoClassifier, views: Views) -> Tensor:
    """What ``model`` scores the video: by the official rule, for ours stretches its nearly uniform scores."""
    cosines = model.head(model.view_features(setting.video, views), setting.classes)
    return view_scores(cosines, views.clips)


@torch.no_grad()
def int8_on_labels(setting: Setting) -> Iterator[Row]:
    """Compare int8 with float32 on every clip and label set; nothing where there is no int8 arm."""
    if INT8 not in setting.prepared:
        return
    models = setting.folded, setting.prepared[INT8][0]
    # As a user's calls batch the frames, on which int8 depends.
    exact, quantised = (model.view_features(setting.video, Views(CLIPS, 1)) for model in models)
    cosines = F.cosine_similarity(quantised, exact, dim=-1)
    head = setting.folded.head
    sets = [setting.class_rows(LABELS, head.embed_dim, seed=100 + number) for number in range(LABEL_SETS)]
    scores, expected = (torch.cat([head(each, classes) for classes in sets]) for each in (quantised, exact))
    found = {"mean cosine": cosines.mean().item(), "lowest cosine": cosines.min().item()}
    for metric, figure in (found | agreement(scores, expected)).items():
        yield Row("end2end", RANKINGS, INT8, metric, "", figure, x=len(scores))


def agreement(scores: Tensor, expected: Tensor) -> dict[str, float]:
    """How alike two score tables [N, C] rank: share of equal best labels, and of the top five that both have."""
    mine, other = (table.topk(TOP, dim=-1).indices for table in (scores, expected))
    shared = (mine[:, :, None] == other[:, None, :]).any(-1)
    return {
        "same best label": (mine[:, 0] == other[:, 0]).float().mean().item(),
        "top five shared": shared.float().mean().item(),
        "largest cosine change": (scores - expected).abs().max().item(),
    }
