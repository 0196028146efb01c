"""Stage "end2end": one video from its file to scores, the parts of that path at the same sizes, and its start."""

from __future__ import annotations

import torch
from torch import Tensor

from mote_fast import VideoClassifier
from stages import released
from stages.head import inference
from stages.loading import decode, transform
from stages.released import ReleasedHead
from stages.setting import Setting
from stages.text import text
from stages.tower import TOLERANCES, tower
from stages.workload import EQUAL, RELEASED, Arm, Workload

STEADY = "one video"


def end2end(setting: Setting) -> list[Workload]:
    """The parts, which the breakdown and the waterfall are made of, and the whole."""
    parts = [
        *decode(setting),
        *transform(setting),
        tower(setting, setting.views.clips),
        inference(setting, setting.views.clips),
    ]
    return [*parts, steady(setting), *text(setting)]


def steady(setting: Setting) -> Workload:
    """Score one video, its label set encoded before."""
    plan, classes = setting.plan, setting.classes
    theirs, towers = ReleasedHead(setting.head).eval(), setting.model.clip
    wanted = plan.frame_indices[plan.positions].flatten().tolist()

    def baseline() -> Tensor:
        return released.classify(setting.video, wanted, towers, theirs, classes, setting.views.clips)[None]

    def arm(name: str, model: VideoClassifier, preparation: float = 0.0) -> Arm:
        def call() -> Tensor:
            # The released scores are nearly uniform; on the way to ours they are stretched, so compare before that.
            with torch.no_grad():
                cosines = model.head(model.view_features(setting.video, setting.views), classes)
            return released.view_scores(cosines, setting.views.clips)

        return Arm(name, call, setting.views.clips, tolerance=TOLERANCES.get(name, EQUAL), preparation=preparation)

    arms = [Arm(RELEASED, baseline, setting.views.clips), arm("mote_fast", setting.folded)]
    arms += [arm(name, *form) for name, form in setting.prepared.items()]
    note = f"{setting.video.name}, {setting.described()['views']} views of {setting.frames} frames, from file to scores"
    return Workload("end2end", STEADY, arms, setting.rounds(3), warmup=1, note=note)
