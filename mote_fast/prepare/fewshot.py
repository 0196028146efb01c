"""Few-shot training lists: K videos of each class, repeated to the size of the full set (paper, Table 5)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from mote_fast.data.items import VideoItem, check_one_label
from mote_fast.errors import ConfigError, ListError
from mote_fast.runtime.seeding import generator_of


def few_shot(items: Sequence[VideoItem], shots: int, seed: int = 0) -> list[VideoItem]:
    """Draw ``shots`` videos of each class: the first of every class, then the second of every class, and so on.

    The draw of a class depends on (seed, label) and the class's paths alone, not on their order. With the same seed,
    the draw for K shots begins with the draw for fewer shots.

    Raises:
        ConfigError: ``shots`` is below 1.
        ListError: a class has fewer videos than ``shots``, or a video has several labels.
    """
    if shots < 1:
        raise ConfigError(f"--shots must be at least 1, got {shots}")
    check_one_label(items, "the list", "a draw of some videos per class needs one for each")
    by_label: defaultdict[int, dict[str, VideoItem]] = defaultdict(dict)
    for item in items:
        by_label[item.label][item.path] = item
    drawn: list[list[VideoItem]] = []
    for label, videos in sorted(by_label.items()):
        if len(videos) < shots:
            raise ListError(f"class {label} has {len(videos)} videos, but --shots asks for {shots} of each class")
        order = torch.randperm(len(videos), generator=generator_of(seed, "fewshot", label)).tolist()
        paths = sorted(videos)
        drawn.append([videos[paths[at]] for at in order[:shots]])
    return [videos[shot] for shot in range(shots) for videos in drawn]


def repeat_to(items: Sequence[VideoItem], length: int) -> list[VideoItem]:
    """Repeat a list from its beginning until it has ``length`` entries.

    An epoch then has as many steps as an epoch over the full set. The counts of any two videos differ by at most one.

    Raises:
        ConfigError: ``length`` is less than the length of the list.
    """
    if length < len(items):
        raise ConfigError(f"--length {length} is less than the {len(items)} videos that were drawn")
    return [items[at % len(items)] for at in range(length)]
