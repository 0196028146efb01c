"""The driver of a trial: python -m tests.batch.trial_program VIDEOS OUTPUT JUDGED ENGINE BLOCK ACTORS.

Each row that a model gives, in whichever process, adds a byte to the file JUDGED.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable
from functools import partial
from typing import Any

import pytest
import torch

import mote_fast
from mote_fast import batch
from mote_fast.batch.output_rows import Row
from mote_fast.batch.video_sources import Item
from tests.batch.deadly import let_names_kill

LABELS = ["archery", "juggling balls", "playing the cello"]


def make_model(judged: str) -> mote_fast.VideoClassifier:
    """Make the trial's model, and let its process count rows and die of the names of videos."""
    torch.set_num_threads(1)
    let_names_kill(pytest.MonkeyPatch())
    rows = batch.Classifier.rows

    def counted(self: Any, items: Iterable[Item]) -> Generator[Row]:
        for row in rows(self, items):
            with open(judged, "ab", buffering=0) as file:
                file.write(b".")
            yield row

    batch.Classifier.rows = counted
    torch.manual_seed(0)
    model = mote_fast.create_model("ViT-test")
    model.feature_cache = None
    return model


def main() -> None:
    """Run, or go on."""
    videos, output, judged, engine, block, actors = sys.argv[1:]
    # Two processes decode in all, so that two processors hold the actors.
    place: Any = {"workers": 2} if engine == "local" else {"actors": int(actors), "workers": 2 // int(actors)}
    batch.classify(
        *(videos, output),
        **place,
        engine=engine,
        model=partial(make_model, judged),
        labels=LABELS,
        views="1x1",
        durable_every=int(block),
    )


if __name__ == "__main__":
    # Ended with the test that started it.
    sys.path.insert(0, os.getcwd())
    main()
