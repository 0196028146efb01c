"""The public model: towers, head, and the path from a video file to ranked labels."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast.clip.calibration import Calibration
from mote_fast.clip.class_features import encode_classes
from mote_fast.clip.feature_cache import FeatureCache
from mote_fast.clip.int8 import Int8Tower
from mote_fast.clip.prompts import PAPER_PROMPTS, Prompts
from mote_fast.clip.text_files import write_text_files
from mote_fast.clip.texts import check_labels
from mote_fast.clip.towers import ClipTowers
from mote_fast.data.decoding.video_info import PixelAspect
from mote_fast.data.loading.view_frames import ViewRequest, read_view_frames
from mote_fast.data.transforms import CropsAlong, evaluation_pixels
from mote_fast.data.views import ViewPlan, Views, plan_views
from mote_fast.errors import ConfigError, LabelError
from mote_fast.head.scores import view_probabilities
from mote_fast.head.video_head import VideoHead
from mote_fast.model.caution import DRAWN_ONLY, untrained_part, warn_user
from mote_fast.model.model_config import ModelConfig
from mote_fast.model.original import OriginalClip
from mote_fast.runtime.checks import check_finite
from mote_fast.runtime.forks import HomeProcess
from mote_fast.runtime.progress import Progress
from mote_fast.runtime.weights import write_model_folder

# A file's path or its bytes, or decoded frames: uint8 [N, H, W, 3].
Video: TypeAlias = str | os.PathLike[str] | bytes | Tensor | np.ndarray
_ONE_VIDEO = (str, os.PathLike, bytes, Tensor, np.ndarray)

log = logging.getLogger(__name__)

# Frames per forward pass of the image tower; bounds memory. On a CPU small batches already saturate the matrix products
# and fit the caches better (ViT-B/16: 8 took 11% less time per frame than 24 in int8, and no more in float32).
FRAMES_PER_BATCH = 32
FRAMES_PER_BATCH_ON_CPU = 8

# What a folded model has of the model that it came from.
_KEPT_BY_FOLD = (
    *("original", "tuned_share", "int8", "decode_backend", "decode_time_limit", "pixel_aspect", "crops_along"),
    *("drawn_only", "classes", "prompts", "feature_cache", "_home"),
)

# Held while a count changes. One for all models, because a lock cannot be copied with a model.
_COUNTING = threading.Lock()


@dataclass(frozen=True)
class Prediction:
    """One ranked label: the name, its index in the given list, and its probability."""

    label: str
    index: int
    score: float


class VideoClassifier(nn.Module):
    """Classifies videos against any labels. Made by ``mote_fast.create_model`` and ``mote_fast.load``.

    Threads may share a model while none changes it. A process that is forked from the one that made the model must use
    one thread of PyTorch (``torch.set_num_threads(1)``); what computes there with more raises ``BackendError``.

    Attributes:
        clip: the CLIP towers.
        head: the video head.
        frames: T, frames per view.
        original: the CLIP that the image tower is tuned from, recorded for ``mote_fast.load``; None if that is unknown
            or the tower is interpolated with it already.
        tuned_share: share of tuned weights in the image tower; the rest is the original's.
        int8: runs the image tower in int8; None, as built, runs it in its own dtype. Set by ``quantize``.
        decode_backend: "auto", "torchcodec" or "pyav", see ``mote_fast.data.read_frames``.
        decode_time_limit: seconds for decoding one video. With a number, decoding runs in another process, so that a
            video on which the decoder crashes, hangs, or takes too much memory raises ``VideoError``; None, as built,
            decodes in this process, without these limits. See ``read_view_frames``.
        pixel_aspect: "ignore" takes all pixels as square, as the released recipe does, with which the released weights
            were trained; "apply" scales videos whose pixels are not square to their true shape.
        crops_along: three crops lie along the "width", as in the released recipe, so that those of a portrait video are
            three times its middle; or along the "long_side".
        drawn_only: the weights were trained on drawn videos alone, as those of the shipped tiny model.
        replaced_frames: frames so far that could not be decoded and were replaced by their nearest neighbors.
        classes: names of the classes that the model was trained on, in the order of their labels; ``classify``
            ranks them where it is given none. None if nobody recorded them.
        prompts: templates and descriptions that class features are made of; those of the training, if it recorded them.
        feature_cache: cache of class features between processes; None disables it.
    """

    def __init__(self, clip: ClipTowers, head: VideoHead, frames: int) -> None:
        super().__init__()
        self.clip = clip
        self.head = head
        self.frames = frames
        self.original: OriginalClip | None = None
        self.tuned_share = 1.0
        self.int8: Int8Tower | None = None
        self.decode_backend = "auto"
        self.decode_time_limit: float | None = None
        self.pixel_aspect: PixelAspect = "ignore"
        self.crops_along: CropsAlong = "width"
        self.drawn_only = False
        self.replaced_frames = 0
        self.classes: Sequence[str] | None = None
        self.prompts: Prompts = PAPER_PROMPTS
        self.feature_cache: FeatureCache | None = FeatureCache()
        self._home = HomeProcess()

    @property
    def config(self) -> ModelConfig:
        """The configuration of this model."""
        return ModelConfig(
            self.clip.config,
            self.head.config,
            self.frames,
            self.original,
            self.tuned_share,
            self.classes,
            self.prompts,
        )

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.clip.device

    @property
    def caution(self) -> str | None:
        """Why the model's ranking of real videos means nothing; None if it is trained for them.

        ``classify``, ``scores`` and ``embed`` warn with it (``mote_fast.errors.UntrainedWarning``).
        """
        return untrained_part(self.clip.model, self.head) or (DRAWN_ONLY if self.drawn_only else None)

    @overload
    def classify(
        self,
        video: Video,
        labels: Sequence[str] | None = ...,
        *,
        views: str = ...,
        topk: int = ...,
        class_features: Tensor | None = ...,
    ) -> list[Prediction]: ...

    @overload
    def classify(
        self,
        video: Sequence[Video],
        labels: Sequence[str] | None = ...,
        *,
        views: str = ...,
        topk: int = ...,
        class_features: Tensor | None = ...,
    ) -> list[list[Prediction]]: ...

    def classify(
        self,
        video: Video | Sequence[Video],
        labels: Sequence[str] | None = None,
        *,
        views: str = "3x1",
        topk: int = 5,
        class_features: Tensor | None = None,
    ) -> list[Prediction] | list[list[Prediction]]:
        """Rank labels for a video, or for each of several.

        Args:
            video: a path, the bytes of a file, or decoded frames uint8 [N, H, W, 3] as a tensor or a NumPy array; or a
                list of these.
            labels: class names, any number; order and duplicates are kept. None takes the model's own, ``classes``.
            views: clips x crops: "1x1", "3x1" (zero-shot protocol), "4x3" (close-set protocol), ...
            topk: how many labels to return; all of them if there are fewer.
            class_features: [C, d], the result of ``class_features(labels)``, if already computed.

        Returns:
            The best labels, best first, ties in the order given. A list of such lists for a list of videos.

        Raises:
            LabelError: the labels are empty, or one of them is blank; or there are none, and the model records none.
            ConfigError: ``views`` or ``topk`` is malformed, ``video`` is something else, or there are three crops for a
                model that squashes frames.
            NotFiniteError: the scores are NaN or infinite, as those of a model whose training diverged.
            VideoError: a video cannot be read; the message names it.
        """
        if topk < 1:
            raise ConfigError(f"topk must be at least 1, got {topk}")
        parsed = Views.parse(views)
        labels = self.classes if labels is None else labels
        if labels is None:
            raise LabelError("no labels: this model records no class names of its own; give a list of them")
        check_labels(labels)
        class_features = self.class_features(labels) if class_features is None else class_features
        if len(class_features) != len(labels):
            raise ConfigError(f"class_features has {len(class_features)} rows for {len(labels)} labels")
        # An open file is iterable too, by its lines.
        if isinstance(video, (*_ONE_VIDEO, io.IOBase)) or not isinstance(video, Iterable):
            return self._rank(self.scores(video, class_features, parsed), labels, topk)
        return [self._rank(self.scores(one, class_features, parsed), labels, topk) for one in video]

    @torch.no_grad()
    def scores(self, video: Video, class_features: Tensor, views: Views | str = "3x1") -> Tensor:
        """Score one video against class features.

        Args:
            video: as in ``classify``.
            class_features: [C, d], from ``class_features``.
            views: as in ``classify``.

        Returns:
            float32 [C], probabilities that rank as the official scores do; see
            ``mote_fast.head.scores.view_probabilities``.
        """
        return self.scores_from_features(self.view_features(video, views), class_features)

    @torch.no_grad()
    def scores_from_features(self, features: Tensor, class_features: Tensor) -> Tensor:
        """Score a video from its frame features ``[views, T, d]``, from ``view_features``; otherwise as ``scores``."""
        self._home.check_threads()
        warn_user(self.caution)
        cosines = self.head(features, class_features.to(features))
        scores = view_probabilities(cosines, len(cosines), self.clip.logit_scale.double()).squeeze(0)
        check_finite(scores, "scores")
        return scores

    @torch.no_grad()
    def embed(self, video: Video, *, views: str = "1x1") -> Tensor:
        """Return the video's embedding, float32 [d], L2-normalised: temporal features, averaged over frames and views.

        Without a label set there is no modulation: the temporal features enter in full.
        """
        warn_user(self.caution)
        pooled = self.head.features(self.view_features(video, views)).float().mean(1)
        check_finite(pooled, "video features")
        return F.normalize(F.normalize(pooled, dim=-1).mean(0), dim=-1)

    @torch.no_grad()
    def view_features(self, video: Video, views: Views | str = "1x1") -> Tensor:
        """Decode a video and encode the frames of its views; a frame that views share is encoded once.

        Returns:
            [clips * crops, T, d] in the model's dtype, the head's input.
        """
        self._home.check_threads()
        parsed = views if isinstance(views, Views) else Views.parse(views)
        clip, preprocessing = self.clip, self.clip.config.preprocessing
        preprocessing.check_crops(parsed.crops)
        frames, plan, displayed = self._read(video, parsed)
        encoded: list[Tensor] = []
        for part in frames.split(max(1, self._frames_at_once // parsed.crops)):
            pixels = evaluation_pixels(
                part.to(self.device), preprocessing, parsed.crops, clip.dtype, displayed, self.crops_along
            )
            encoded.append(self.encode_frames(pixels.flatten(0, 1)).unflatten(0, (len(part), parsed.crops)))
        return plan.gather(torch.cat(encoded))

    def encode_frames(self, pixels: Tensor) -> Tensor:
        """Encode frames with the image tower, in int8 if the model is quantised.

        Args:
            pixels: [N, 3, S, S], normalised, in the model's dtype.

        Returns:
            [N, d], projected, not L2-normalised (eq. (1)).
        """
        self._home.check_threads()
        return self.clip.encode_frames(pixels) if self.int8 is None else self.int8(pixels)

    @torch.no_grad()
    def class_features(self, labels: Sequence[str], *, progress: Progress | None = None) -> Tensor:
        """Return the class features of a label set, float32 [C, d]; see ``mote_fast.clip.encode_classes``."""
        self._home.check_threads()
        return encode_classes(self.clip, labels, self.prompts_for(labels), cache=self.feature_cache, progress=progress)

    def prompts_for(self, labels: Sequence[str]) -> Prompts:
        """Return ``prompts``, without their descriptions if these are of the model's ``classes`` and of no label."""
        described = self.prompts.descriptions
        if any(name in described for name in self.classes or ()) and not any(label in described for label in labels):
            return replace(self.prompts, descriptions={})
        return self.prompts

    @torch.no_grad()
    def embed_text(
        self, texts: Sequence[str], templates: Sequence[str] | None = None, *, progress: Progress | None = None
    ) -> Tensor:
        """Return the embedding of each text; its cosine with that of ``embed`` says how well a video fits the text.

        Args:
            texts: captions or queries, at least one, none blank.
            templates: prompts with one "{}" each, whose embeddings are averaged; None encodes the texts as they are.
            progress: called with the number of prompts finished since the last call.

        Returns:
            float32 [N, d] on the model's device, L2-normalised rows in the order of the texts.

        Raises:
            LabelError: there are no texts, or one of them is blank or not a string; or a template has not one "{}", or
                has other braces.
            NotFiniteError: the text tower gives NaN or infinity.
        """
        if isinstance(texts, str):
            raise LabelError("texts must be a list of texts, not one string; use [text]")
        prompts = Prompts(("{}",) if templates is None else templates)
        self._home.check_threads()
        return encode_classes(self.clip, texts, prompts, cache=self.feature_cache, progress=progress)

    def fold(self) -> VideoClassifier:
        """Return an equivalent classifier for inference whose experts are merged once; it shares the towers.

        A head that does not merge at inference keeps its experts, see ``VideoHead.fold``.
        """
        self._home.check_threads()
        folded = VideoClassifier(self.clip, self.head.fold(), self.frames)
        for name in _KEPT_BY_FOLD:
            setattr(folded, name, getattr(self, name))
        return folded.train(self.training)

    def quantize(self, calibrate: Iterable[str | os.PathLike[str]] | None = None) -> None:
        """Run the image tower in int8 from now on, see ``mote_fast.clip.int8``. The float weights are kept for saving.

        Args:
            calibrate: paths of videos like those to classify, of which two frames each say how large the activations
                become; None takes drawn videos of the package.

        Raises:
            ConfigError: the tower is not CLIP's ViT in float32 on the CPU, or ``calibrate`` is no list of paths.
            BackendError: a package is missing.
            VideoError: a video of ``calibrate`` cannot be read.
        """
        tower = Int8Tower(self.clip, calibration=Calibration(calibrate, self.decode_backend, self.decode_time_limit))
        tower.prepare()
        self.int8 = tower

    def train(self, mode: bool = True) -> VideoClassifier:
        """Set training mode, as in any module.

        Raises:
            ConfigError: ``mode`` is True and the model is int8.
        """
        if mode and self.int8 is not None:
            raise ConfigError("an int8 model cannot be trained; load it with dtype=torch.float32")
        return super().train(mode)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Run the image tower through ``torch.compile`` from now on, in place, as ``nn.Module.compile`` does.

        The first call compiles, for any number of frames. On a CPU the gain is small: for ViT-B/16 compiling took 40 s,
        after which frames took 1 to 8% less time, and whole videos no less. The head and the text tower stay eager:
        they are a few percent of a video's work. The image tower of an int8 model runs in ONNX Runtime and is not
        compiled.

        Args:
            args: passed to ``torch.compile``.
            kwargs: passed to ``torch.compile``.
        """
        self.clip.compile_frames(*args, **kwargs)

    def save(self, folder: str | Path) -> None:
        """Write the model to ``folder`` (config.json and model.safetensors), atomically; ``mote_fast.load`` reads it.

        The folder is complete: it also holds the configuration and tokenizer of a text tower from transformers, and the
        class names and prompts of the training.

        Raises:
            CheckpointError: the folder holds something else, or cannot be written.
        """
        tensors = {f"clip.{name}": value for name, value in self.clip.model.state_dict().items()}
        tensors |= {f"head.{name}": value for name, value in self.head.state_dict().items()}
        write_model_folder(folder, self.config.to_json(), tensors, partial(write_text_files, self.clip))

    @property
    def _frames_at_once(self) -> int:
        """Frame crops per forward pass of the image tower."""
        return FRAMES_PER_BATCH_ON_CPU if self.device.type == "cpu" else FRAMES_PER_BATCH

    def _read(self, video: Video, views: Views) -> tuple[Tensor, ViewPlan, tuple[int, int]]:
        """Decode the frames [U, H, W, 3] that the views need; with their (height, width) in square pixels."""
        if isinstance(video, (Tensor, np.ndarray)):
            if (
                str(video.dtype) not in ("torch.uint8", "uint8")
                or video.ndim != 4
                or video.shape[-1] != 3
                or 0 in video.shape
            ):
                raise ConfigError(f"decoded frames must be uint8 [N, H, W, 3], got {video.dtype} {list(video.shape)}")
            plan = plan_views(len(video), self.frames, views)
            if isinstance(video, Tensor):
                return video[plan.frame_indices.to(video.device)], plan, (video.shape[1], video.shape[2])
            # PyTorch takes no negative strides, such as those of reversed colors.
            return torch.from_numpy(np.ascontiguousarray(video[plan.frame_indices.numpy()])), plan, video.shape[1:3]
        if not isinstance(video, (str, os.PathLike, bytes)):
            raise ConfigError(
                f"a video is a path, the bytes of a file, or decoded frames uint8 [N, H, W, 3] as a tensor or a NumPy "
                f"array, not {type(video).__name__}"
            )
        if isinstance(video, os.PathLike):
            video = os.fsdecode(video)
        request = ViewRequest(
            self.frames,
            views,
            self.clip.config.preprocessing,
            self._frames_at_once,
            self.decode_backend,
            self.pixel_aspect,
        )
        found = read_view_frames(video, request, self.decode_time_limit)
        if found.stand_ins:
            with _COUNTING:
                self.replaced_frames += len(found.stand_ins)
            log.warning(
                "%s: %d of %d frames cannot be decoded; their neighbors stand in for them (frame %s)",
                found.path,
                len(found.stand_ins),
                len(found.plan.frame_indices),
                ", ".join(f"{index}: {neighbor}" for index, neighbor in found.stand_ins.items()),
            )
        return found.frames, found.plan, found.displayed

    @staticmethod
    def _rank(scores: Tensor, labels: Sequence[str], topk: int) -> list[Prediction]:
        # A stable sort keeps equal scores (duplicate labels) in the order given.
        order: list[int] = scores.cpu().argsort(descending=True, stable=True)[:topk].tolist()
        return [Prediction(labels[index], index, float(scores[index])) for index in order]
