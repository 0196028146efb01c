"""``mote_fast.load_exported``: classifies videos with the graphs of a folder, without CLIP's code or its text tower."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from mote_fast.data.loading.addresses import Address
from mote_fast.data.loading.view_frames import ViewRequest, crop_frames
from mote_fast.data.transforms import normalize
from mote_fast.data.views import ViewPlan, Views
from mote_fast.errors import CheckpointError, ConfigError, LabelError, quoted
from mote_fast.exports.read import check_files, open_graphs, read_classes, read_record
from mote_fast.exports.record import ExportRecord
from mote_fast.exports.runners import Runner
from mote_fast.model.caution import warn_user
from mote_fast.model.label_input import Labels, labels_of
from mote_fast.model.results import Prediction, rank
from mote_fast.model.video_input import Frames, Layout, Video, Videos, read_views, sort_out, source_of
from mote_fast.runtime.checks import check_count, check_finite
from mote_fast.runtime.forks import HomeProcess

log = logging.getLogger(__name__)

# Frame crops per call of the tower, as ``VideoClassifier`` has on a CPU; they bound the memory.
_AT_ONCE = 8


class ExportedClassifier:
    """Classifies videos with exported graphs, as the model that they were exported from. Made by ``load_exported``.

    Threads may share it.

    Attributes:
        record: what the folder says of itself.
        classes: the class names whose features the folder holds; None if it holds none.
        frames: T, frames per view, at most ``record.max_frames``.
        decode_backend: see ``VideoClassifier``.
        decode_time_limit: see ``VideoClassifier``.
        replaced_frames: see ``VideoClassifier``.
    """

    def __init__(self, record: ExportRecord, graphs: Mapping[str, Runner], class_features: Tensor | None) -> None:
        self.record = record
        self.classes = record.labels
        self.frames = record.frames
        self.decode_backend = "auto"
        self.decode_time_limit: float | None = None
        self.replaced_frames = 0
        self._graphs = graphs
        self._class_features = class_features
        self._counting = threading.Lock()
        self._home = HomeProcess()

    @property
    def caution(self) -> str | None:
        """Why the model's ranking of real videos means nothing; None if it is trained for them."""
        return self.record.caution

    @overload
    def classify(
        self,
        video: Video,
        labels: Labels | None = ...,
        *,
        views: str = ...,
        topk: int | None = ...,
        class_features: Tensor | np.ndarray | None = ...,
        layout: Layout | None = ...,
    ) -> list[Prediction]: ...

    @overload
    def classify(
        self,
        video: Videos,
        labels: Labels | None = ...,
        *,
        views: str = ...,
        topk: int | None = ...,
        class_features: Tensor | np.ndarray | None = ...,
        layout: Layout | None = ...,
    ) -> list[list[Prediction]]: ...

    def classify(
        self,
        video: Video | Videos,
        labels: Labels | None = None,
        *,
        views: str = "3x1",
        topk: int | None = 5,
        class_features: Tensor | np.ndarray | None = None,
        layout: Layout | None = None,
    ) -> Any:
        """Rank labels for a video, or for each of several, as ``VideoClassifier.classify`` does.

        Args:
            video: a file or decoded frames in any form that ``VideoClassifier.classify`` takes; or several of these.
            labels: class names. Without ``class_features`` they are some of ``classes``; None takes all of these.
            views: clips x crops.
            topk: how many labels to return; all of them if there are fewer, or if it is None.
            class_features: [C, d], features of the labels, from ``VideoClassifier.class_features``.
            layout: the axes of decoded frames, as there.

        Returns:
            The best labels, best first, ties in the order given. A list of such lists for several videos.

        Raises:
            LabelError: the folder holds no features of a label, as it has no text tower to make them; or the labels are
                empty, or one of them is blank.
            ConfigError: an argument is malformed, or the folder has only one of the two graphs.
            NotFiniteError: the scores are NaN or infinite.
            VideoError: a video cannot be read; the message names it.
        """
        if topk is not None:
            check_count("topk", topk, 1)
        names, features = self._choose(labels, class_features)

        def ranked(one: Any) -> list[Prediction]:
            return rank(self.scores(one, features, views, layout=layout), names, topk)

        several, given = sort_out(video)
        return [ranked(one) for one in given] if several else ranked(given)

    def scores(
        self,
        video: Video,
        class_features: Tensor | np.ndarray | None = None,
        views: Views | str = "3x1",
        *,
        layout: Layout | None = None,
    ) -> Tensor:
        """Score one video against class features [C, d], or those of the folder: float32 [C], summing to 1."""
        self._home.check_threads()
        warn_user(self.caution)
        _, classes = self._choose(None, class_features, nameless=True)
        parsed = views if isinstance(views, Views) else Views.parse(views)
        self.record.preprocessing.check_crops(parsed.crops)
        check_count("frames", self.frames, 1, self.record.max_frames)
        if "whole" not in self._graphs and len(self._graphs) < 2:
            (only,) = self._graphs
            raise ConfigError(f"this export has the graph {only!r} alone; classifying takes tower and head, or whole")
        pixels, plan = self._pixels(source_of(video, layout), parsed)
        if "whole" in self._graphs:
            scores = self._graphs["whole"](plan.gather(pixels), classes)
        else:
            crops = pixels.flatten(0, 1)
            features = torch.cat([self._graphs["tower"](part) for part in crops.split(_AT_ONCE)])
            scores = self._graphs["head"](plan.gather(features.unflatten(0, pixels.shape[:2])), classes)
        check_finite(scores, "scores")
        return scores

    def _choose(
        self, labels: Labels | None, class_features: Any, nameless: bool = False
    ) -> tuple[Sequence[str], Tensor]:
        """Return class names and their features, given or stored."""
        known = self.classes or ()
        wanted = None if labels is None else labels_of(labels)
        if class_features is not None:
            given = torch.as_tensor(class_features).float()
            if given.ndim != 2 or given.shape[1] != self.record.embed_dim or not len(given):
                raise ConfigError(f"class_features must be [C, {self.record.embed_dim}], got {list(given.shape)}")
            names = known if wanted is None else wanted
            if not nameless and len(names) != len(given):
                raise ConfigError(f"class_features has {len(given)} rows for {len(names)} labels")
            return names, given
        if self._class_features is None:
            raise LabelError(
                "no class features: this export has none, nor a text tower to make them; export with labels=, or give "
                "class_features="
            )
        if wanted is None:
            return known, self._class_features
        place = {name: at for at, name in enumerate(known)}
        if unknown := [label for label in wanted if label not in place]:
            raise LabelError(
                f"{quoted(unknown[0])} is none of the {len(known)} classes of this export, which has no text tower; "
                "export with it in labels=, or give class_features="
            )
        return wanted, self._class_features[[place[label] for label in wanted]]

    def _pixels(self, source: str | bytes | Address | Frames, views: Views) -> tuple[Tensor, ViewPlan]:
        """Decode the distinct frames of the views: pixels [U, crops, 3, S, S]."""
        record = self.record
        request = ViewRequest(
            self.frames,
            views,
            record.preprocessing,
            _AT_ONCE,
            self.decode_backend,
            record.pixel_aspect,
            record.crops_along,
        )
        found = read_views(source, request, self.decode_time_limit)
        if found.stand_ins:
            with self._counting:
                self.replaced_frames += len(found.stand_ins)
            log.warning(
                "%s: %d frames cannot be decoded; their neighbors stand in for them", found.path, len(found.stand_ins)
            )
        return normalize(crop_frames(found, request, torch.device("cpu")), record.preprocessing), found.plan


def load_exported(folder: str | os.PathLike[str], *, trust: bool = False) -> ExportedClassifier:
    """Read a folder that ``mote_fast.export`` wrote, on the CPU.

    Args:
        folder: path of the folder.
        trust: needed for the formats "pt2" and "aoti", which run code of their files when they are opened: whoever made
            the folder can do what you can do. ONNX graphs only compute.

    Raises:
        CheckpointError: the folder is missing, something else, damaged or inconsistent, or would need ``trust``.
        BackendError: ONNX Runtime is missing; or the graphs were compiled for another processor or another PyTorch.
    """
    place = Path(folder)
    record = read_record(place)
    if record.format != "onnx" and not trust:
        raise CheckpointError(
            f"{place}: refused, because a folder of the format {record.format!r} runs code when it is opened; give "
            "trust=True if you trust whoever made it, or export as 'onnx'"
        )
    check_files(place, record)
    return ExportedClassifier(record, open_graphs(place, record), read_classes(place, record))
