"""A process that answers with the labels of one video and says how long each part took: see ``answer.py``.

It reads what to do as JSON from standard input, and writes what it found as JSON on its last line. Parts are "start"
(the interpreter, imports and the model, up to a model that is ready), "labels", "video" (the first), and "next" (the
median of those after it). Imports that one arm alone needs are within its functions.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from gauge import status


def official(given: dict[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """The official recipe: ready to encode labels, and to score the video for them."""
    from official import OfficialHead, classify, encode_labels

    import mote_fast
    from mote_fast.data import probe
    from mote_fast.data.views import Views, plan_views

    model = mote_fast.load(given["model"])
    head, towers = OfficialHead(model.head).eval(), model.clip
    views = Views(*given["views"])

    def score(classes: torch.Tensor) -> torch.Tensor:
        plan = plan_views(probe(given["video"]).num_frames, model.frames, views)
        wanted = plan.frame_indices[plan.positions].flatten().tolist()
        # As many classes as the answer has; only some of them were encoded.
        assert head.train_class_features is not None
        padded = torch.cat((classes, head.train_class_features))[: len(head.train_class_features)]
        return classify(given["video"], wanted, towers, head, padded, views.clips)

    return lambda: encode_labels(towers, given["labels"]), score


def ours(given: dict[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """The library as a user has it, with the caches in the user's folder."""
    import mote_fast
    from mote_fast.data.views import Views

    model = mote_fast.load(given["model"], dtype=given["dtype"]).fold()
    views = Views(*given["views"])
    return lambda: model.class_features(given["labels"]), lambda classes: model.scores(given["video"], classes, views)


def main() -> None:
    given = json.load(sys.stdin)
    torch.set_num_threads(given["threads"])
    wall, processor = {"start": -given["begun"]}, {"start": 0.0}

    def ends(part: str) -> None:
        wall[part] = wall.get(part, 0.0) + time.time()
        processor[part] = processor.get(part, 0.0) + time.process_time()

    def begins(part: str) -> None:
        wall[part], processor[part] = -time.time(), -time.process_time()

    encode, score = (ours if given["dtype"] else official)(given)
    ends("start")
    begins("labels")
    classes = encode()
    ends("labels")
    begins("video")
    score(classes)
    ends("video")
    later: list[tuple[float, float]] = []
    for _ in range(given["following"]):
        begins("next")
        score(classes)
        ends("next")
        later.append((wall["next"], processor["next"]))
    wall["next"], processor["next"] = (statistics.median(each) for each in zip(*later, strict=True))
    sys.stdout.write(f"\n{json.dumps({'wall': wall, 'processor': processor, 'peak': status('VmHWM')})}\n")


if __name__ == "__main__":
    main()
