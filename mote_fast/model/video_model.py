"""Towers and head as one model: from a video to its frame features and scores."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast.clip.class_features import encode_classes
from mote_fast.clip.feature_cache import FeatureCache
from mote_fast.clip.int8 import Int8Tower
from mote_fast.clip.prompts import PAPER_PROMPTS, Prompts
from mote_fast.clip.towers import ClipTowers
from mote_fast.data.decoding.video_info import PixelAspect
from mote_fast.data.loaders import make_reader, shared_reader
from mote_fast.data.loading.view_frames import CropReader, ViewFrames, ViewRequest, crop_frames, folder_of
from mote_fast.data.reading_choices import LoaderBackend
from mote_fast.data.transforms import CropsAlong, normalize
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, LabelError
from mote_fast.head.scores import view_probabilities
from mote_fast.head.video_head import VideoHead
from mote_fast.model.caution import DRAWN_ONLY, untrained_part, warn_user
from mote_fast.model.distinct_frames import FrameCounts, distinct_frames
from mote_fast.model.label_input import Labels, labels_of
from mote_fast.model.model_config import ModelConfig
from mote_fast.model.original import OriginalClip
from mote_fast.model.video_input import Frames, Layout, Video, read_views, source_of
from mote_fast.runtime.checks import check_finite
from mote_fast.runtime.forks import HomeProcess
from mote_fast.runtime.progress import Progress

log = logging.getLogger(__name__)

# Frames per forward pass of the image tower; bounds memory. On a CPU small batches already saturate the matrix products
# and fit the caches better (ViT-B/16: 8 took 11% less time per frame than 24 in int8, and no more in float32).
FRAMES_PER_BATCH = 128
FRAMES_PER_BATCH_ON_CPU = 8
# Decoded frames scaled at a time, at most: they are of full size, and on the host.
FRAMES_SCALED_AT_ONCE = 32

# Seconds for decoding one video in another process, where the model states no other.
TIME_LIMIT = 60.0

# Held while a count changes. One for all models, because a lock cannot be copied with a model.
_COUNTING = threading.Lock()


class VideoModel(nn.Module):
    """Towers and head, and how they read videos: frame features and scores.

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
        loader: what decodes the videos of streams and lists, as ``backend`` of ``make_loader``: "auto", "cpu", "dali"
            or "torchcodec-gpu". A decoder that is named decodes single videos too; "auto" leaves them to the CPU,
            because the process of a GPU's decoder starts for longer than a video takes.
        decode_time_limit: seconds for decoding one video. With a number, decoding runs in another process, so that a
            video on which the decoder crashes, hangs, or takes too much memory raises ``VideoError``; None, as built,
            decodes in this process, without these limits. See ``read_view_frames``.
        pixel_aspect: "ignore" takes all pixels as square, as the released recipe does, with which the released weights
            were trained; "apply" scales videos whose pixels are not square to their true shape.
        crops_along: three crops lie along the "width", as in the released recipe, so that those of a portrait video are
            three times its middle; or along the "long_side".
        reject_level: level of the best label, see ``Timeline.levels``, below which a video or a window shows none of
            the labels; ``reject="auto"`` and ``background="auto"`` use it. None if nobody measured it.
        drawn_only: the weights were trained on drawn videos alone, as those of the shipped tiny model.
        frame_counts: frames so far that the views of videos consist of, and how many of them were encoded.
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
        self.loader: LoaderBackend = "auto"
        self.decode_time_limit: float | None = None
        self.pixel_aspect: PixelAspect = "ignore"
        self.crops_along: CropsAlong = "width"
        self.reject_level: float | None = None
        self.drawn_only = False
        self.frame_counts = FrameCounts()
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
            self.reject_level,
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

    def forward(self, pixels: Tensor, class_features: Tensor | None = None) -> Tensor:
        """Score clips that are ready for the image tower, with gradients where they are enabled.

        Args:
            pixels: [B, T, 3, S, S], normalised, in the model's dtype: one view of each video, as
                ``mote_fast.data.evaluation_pixels`` and the batches of ``mote_fast.data.make_loader`` give them.
            class_features: [C, d], from ``class_features``; None takes those of the model's own ``classes``.

        Returns:
            [B, C], logits: their softmax over the labels is CLIP's probability. ``classify`` averages over views.

        Raises:
            ConfigError: the pixels do not fit.
            LabelError: there are no class features, and the model records no class names.
        """
        size = self.clip.image_size
        if pixels.ndim != 5 or list(pixels.shape[2:]) != [3, size, size]:
            raise ConfigError(
                f"pixels must be [B, T, 3, {size}, {size}], normalised, got {list(pixels.shape)}; for files and "
                "decoded frames use classify"
            )
        if class_features is None:
            if self.classes is None:
                raise LabelError("no labels: this model records no class names; give class_features(labels)")
            class_features = self.class_features(self.classes)
        features = self.encode_frames(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        return self.clip.logit_scale * self.head(features, class_features.to(features.device))

    @torch.no_grad()
    def scores(
        self, video: Video, class_features: Tensor, views: Views | str = "3x1", *, layout: Layout | None = None
    ) -> Tensor:
        """Score one video against class features.

        Args:
            video: as in ``classify``.
            class_features: [C, d], from ``class_features``.
            views: as in ``classify``, as ``layout``.

        Returns:
            float32 [C], probabilities that rank as the official scores do; see
            ``mote_fast.head.scores.view_probabilities``.
        """
        return self.scores_from_features(self.view_features(video, views, layout=layout), class_features)

    @torch.no_grad()
    def scores_from_features(self, features: Tensor, class_features: Tensor) -> Tensor:
        """Score a video from its frame features ``[views, T, d]``, from ``view_features``; otherwise as ``scores``."""
        self._home.check_threads()
        warn_user(self.caution)
        # In their own dtype: the cosines are computed in float32, and rounded classes would tie.
        cosines = self.head(features, class_features.to(features.device))
        scores = view_probabilities(cosines, len(cosines), self.clip.logit_scale.double()).squeeze(0)
        check_finite(scores, "scores")
        return scores

    @torch.no_grad()
    def embedding_from_features(self, features: Tensor) -> Tensor:
        """Return a video's embedding, float32 [d], from its frame features ``[views, T, d]``; see ``embed``."""
        warn_user(self.caution)
        pooled = self.head.features(features).float().mean(1)
        check_finite(pooled, "video features")
        return F.normalize(F.normalize(pooled, dim=-1).mean(0), dim=-1)

    @torch.no_grad()
    def view_features(self, video: Video, views: Views | str = "1x1", *, layout: Layout | None = None) -> Tensor:
        """Decode a video and encode the frames of its views; equal frames and crops are encoded once.

        Returns:
            [clips * crops, T, d] in the model's dtype, the head's input.
        """
        self._home.check_threads()
        request = self.view_request(self.check_views(views))
        source = source_of(video, layout)
        if self.loader in ("auto", "cpu") or isinstance(source, Frames):
            read = read_views(source, request, self.decode_time_limit)
            cropped = read._replace(frames=crop_frames(read, request, self.device))
        else:
            reader = shared_reader(self.loader, self.device, self.decode_time_limit or TIME_LIMIT)
            read = cropped = reader.read(source, request, folder_of(source))
        self.note_stand_ins(read)
        return self.encode_views([cropped])[0]

    @torch.no_grad()
    def encode_views(self, read: Sequence[ViewFrames], batch_size: int | None = None) -> list[Tensor]:
        """Encode the views of videos that have been read and cropped; equal crops of a video are encoded once.

        Args:
            read: of each video what ``CropReader`` returns, ``frames`` being crops, uint8 [U, crops, 3, S, S].
            batch_size: crops, of several videos, in one pass of the image tower. None takes one video at a time, with
                which a video's features are the same to the last bit whatever it is given with.

        Returns:
            For each video [clips * crops, T, d] in the model's dtype, the head's input.
        """
        self._home.check_threads()
        preprocessing = self.clip.config.preprocessing
        distinct = [distinct_frames(each.frames.to(self.device).flatten(0, 1)) for each in read]
        for found in distinct:
            self.frame_counts.add(found)
        crops = [found.frames for found in distinct]
        if batch_size is None:
            parts = [part for own, each in zip(crops, read, strict=True) for part in own.split(self._at_once(each))]
        else:
            parts = list(torch.cat(crops).split(batch_size))
        encoded = torch.cat([self.encode_frames(normalize(part, preprocessing, self.clip.dtype)) for part in parts])
        return [
            each.plan.gather(found.spread(features).unflatten(0, (-1, each.plan.crops)))
            for each, found, features in zip(read, distinct, encoded.split([len(own) for own in crops]), strict=True)
        ]

    def _at_once(self, read: ViewFrames) -> int:
        """Crops of a video in one pass of the image tower: those of whole frames."""
        return max(1, self._frames_at_once // read.plan.crops) * read.plan.crops

    def encode_frames(self, pixels: Tensor, *, many: bool = False) -> Tensor:
        """Encode frames with the image tower, in int8 if the model is quantised.

        Args:
            pixels: [N, 3, S, S], normalised, in the model's dtype.
            many: whether this is part of work on many videos, for which compiling may pay.

        Returns:
            [N, d], projected, not L2-normalised (eq. (1)).
        """
        self._home.check_threads()
        if self.int8 is None:
            return self.clip.encode_frames(pixels, many=many)
        if pixels.dtype != torch.float32 or pixels.device.type != "cpu":
            kind = f"{str(pixels.dtype).removeprefix('torch.')} on {pixels.device}"
            raise ConfigError(f"an int8 model computes in float32 on the CPU, not in {kind}; load it without int8")
        return self.int8(pixels)

    @property
    def image_tower(self) -> str:
        """What runs the image tower: "eager", "compiled", "int8", or "eager: " and why it could not be compiled."""
        return self.clip.compiler.state if self.int8 is None else "int8"

    @torch.no_grad()
    def prepare_to_serve(self) -> None:
        """Compile the image tower now, if it is to be: the first requests of a server must not wait for it."""
        if self.int8 is None and self.clip.compiler.start(self.device):
            size = self.clip.image_size
            self.encode_frames(torch.zeros(2, 3, size, size, device=self.device, dtype=self.clip.dtype))

    @torch.no_grad()
    def class_features(self, labels: Labels, *, progress: Progress | None = None) -> Tensor:
        """Return the class features of a label set, float32 [C, d]; see ``mote_fast.clip.encode_classes``."""
        self._home.check_threads()
        labels = labels_of(labels)
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

    @property
    def _frames_at_once(self) -> int:
        """Frame crops per forward pass of the image tower."""
        return FRAMES_PER_BATCH_ON_CPU if self.device.type == "cpu" else FRAMES_PER_BATCH

    def check_views(self, views: Views | str) -> Views:
        """Parse views.

        Raises:
            ConfigError: they are malformed, or have three crops for a model that squashes frames.
        """
        parsed = views if isinstance(views, Views) else Views.parse(views)
        self.clip.config.preprocessing.check_crops(parsed.crops)
        return parsed

    def make_reader(self, workers: int, time_limit: float | None = None) -> CropReader:
        """Return what reads videos for this model, see ``mote_fast.data.loaders.make_reader``.

        Args:
            workers: processes that decode, or look at videos.
            time_limit: seconds for one video; None takes the model's, or ``TIME_LIMIT``.

        Raises:
            ConfigError, BackendError: ``loader`` is unknown, or not available.
        """
        return make_reader(self.loader, self.device, workers, time_limit or self.decode_time_limit or TIME_LIMIT)

    def view_request(self, views: Views) -> ViewRequest:
        """What to read of a video file for these views."""
        return ViewRequest(
            self.frames,
            views,
            self.clip.config.preprocessing,
            min(self._frames_at_once, FRAMES_SCALED_AT_ONCE),
            self.decode_backend,
            self.pixel_aspect,
            self.crops_along,
        )

    def note_stand_ins(self, found: ViewFrames) -> None:
        """Count and log the frames that could not be decoded."""
        if not found.stand_ins:
            return
        with _COUNTING:
            self.replaced_frames += len(found.stand_ins)
        log.warning(
            "%s: %d of %d frames cannot be decoded; their neighbors stand in for them (frame %s)",
            found.path,
            len(found.stand_ins),
            len(found.plan.frame_indices),
            ", ".join(f"{index}: {neighbor}" for index, neighbor in found.stand_ins.items()),
        )
