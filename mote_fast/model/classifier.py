"""The public model: towers, head, and the path from a video file to ranked labels."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, overload

import torch
from torch import Tensor

from mote_fast.clip.calibration import Calibration
from mote_fast.clip.int8 import Int8Backend, Int8Tower
from mote_fast.clip.text_files import write_text_files
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, LabelError
from mote_fast.model.label_input import Labels, labels_of
from mote_fast.model.live import LiveModel
from mote_fast.model.many_videos import Errors, StreamOptions, check_stream, collect, embed_each, rank_each
from mote_fast.model.open_clip_folder import write_open_clip_folder
from mote_fast.model.publish import MESSAGE, push_folder
from mote_fast.model.rejecting import refuser_of
from mote_fast.model.results import Prediction, VideoEmbedding, VideoResult, rank
from mote_fast.model.video_input import Layout, Video, Videos
from mote_fast.runtime.checks import check_choice, check_count
from mote_fast.runtime.weights import write_model_folder
from mote_fast.timeline.rejection import Rejection

# The layouts of saved folders.
FolderFormat = Literal["mote_fast", "open_clip"]

# What a folded model has of the model that it came from.
_KEPT_BY_FOLD = (
    *("original", "tuned_share", "int8", "decode_backend", "loader", "decode_time_limit"),
    *("pixel_aspect", "crops_along"),
    *("drawn_only", "reject_level", "classes", "prompts", "feature_cache", "_home"),
)


class VideoClassifier(LiveModel):
    """Classifies videos against any labels. Made by ``mote_fast.create_model`` and ``mote_fast.load``.

    Threads may share a model while none changes it. A process that is forked from the one that made the model must use
    one thread of PyTorch (``torch.set_num_threads(1)``); what computes there with more raises ``BackendError``.
    """

    # A list is one video if it holds images, and several if it holds anything else; the first overload wins.
    @overload
    def classify(  # pyright: ignore[reportOverlappingOverload]
        self,
        video: Video,
        labels: Labels | None = ...,
        *,
        views: str = ...,
        topk: int | None = ...,
        class_features: Tensor | None = ...,
        reject: Rejection = ...,
        layout: Layout | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[Prediction]: ...

    @overload
    def classify(
        self,
        video: Videos,
        labels: Labels | None = ...,
        *,
        views: str = ...,
        topk: int | None = ...,
        class_features: Tensor | None = ...,
        reject: Rejection = ...,
        layout: Layout | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[list[Prediction]]: ...

    @overload
    def classify(
        self,
        video: Video | Videos,
        labels: Labels | None = ...,
        *,
        views: str = ...,
        topk: int | None = ...,
        class_features: Tensor | None = ...,
        reject: Rejection = ...,
        layout: Layout | None = ...,
        errors: Literal["return"],
    ) -> Any: ...

    def classify(
        self,
        video: Video | Videos,
        labels: Labels | None = None,
        *,
        views: str = "3x1",
        topk: int | None = 5,
        class_features: Tensor | None = None,
        reject: Rejection = None,
        layout: Layout | None = None,
        errors: Errors = "raise",
    ) -> Any:
        """Rank labels for a video, or for each of several, which other processes decode while the model computes.

        Args:
            video: a path, the bytes of a file, an open binary file; decoded frames uint8 [N, H, W, 3] or floats in
                [0, 1] as a tensor or a NumPy array; images or arrays [H, W, 3] one after another; one image; or a
                torchcodec ``VideoDecoder``. Several videos are a list or another iterable of these. docs/inputs.md has
                examples.
            labels: class names, a list or another iterable; order and duplicates are kept. None takes the model's own,
                ``classes``.
            views: clips x crops: "1x1", "3x1" (zero-shot protocol), "4x3" (close-set protocol), ...
            topk: how many labels to return; all of them if there are fewer, or if it is None.
            class_features: [C, d], the result of ``class_features(labels)``, if already computed.
            reject: when a video shows none of the labels. "auto": its level, see ``Timeline.levels``, is below the
                model's ``reject_level``. A number: it is below that. What competes with the labels without entering the
                modulation: words, such as ["an empty street"], or embeddings [d] or [K, d] of background.
            layout: the axes of decoded frames, "THWC", "TCHW" or "CTHW"; None takes, of the first two, that which has
                three colors.
            errors: "raise" ends at the first video that has no result; "return" gives its error in place of its labels.

        Returns:
            The best labels, best first, ties in the order given; none if the video is rejected. A list of such lists
            for a list of videos.

        Raises:
            LabelError: the labels are empty, or one of them is blank; or there are none, and the model records none.
            ConfigError: ``views`` or ``topk`` is malformed, ``video`` is something else, or there are three crops for a
                model that squashes frames.
            NotFiniteError: the scores are NaN or infinite, as those of a model whose training diverged.
            VideoError: a video cannot be read; the message names it.
        """
        check_choice("errors", errors, Errors)
        listed, parsed = self._check_request(labels, views, topk, class_features)
        classes, refuser = class_features, refuser_of(self, reject)

        def alone(video: Video) -> list[Prediction]:
            features = self.class_features(listed) if classes is None else classes
            frames = self.view_features(video, parsed, layout=layout)
            ranked = rank(self.scores_from_features(frames, features), listed, topk)
            return [] if refuser is not None and refuser.refuses(frames, features) else ranked

        def together(videos: Videos) -> Generator[VideoResult, None, None]:
            return rank_each(self, videos, listed, classes, parsed, topk, StreamOptions(layout=layout), refuser)

        return collect(video, alone, together, lambda result: result.predictions, errors)

    def stream_results(
        self,
        videos: Videos,
        labels: Labels | None = None,
        *,
        views: str = "3x1",
        topk: int | None = 5,
        class_features: Tensor | None = None,
        reject: Rejection = None,
        layout: Layout | None = None,
        workers: int | None = None,
        batch_size: int | None = None,
    ) -> Generator[VideoResult, None, None]:
        """Rank labels for one video after another: results in the order given, as they come.

        Worker processes decode the next videos while the model computes. A video that cannot be read, crashes its
        decoder or takes over ``decode_time_limit`` seconds (60 if that is None) costs itself alone: its result has an
        ``error``. Closing the generator, or Ctrl-C, ends the processes.

        Args:
            videos: any iterable, also without an end; it is read a few videos ahead, in the caller's thread. An image
                in it is a video of one frame.
            labels: as in ``classify``, as ``views``, ``topk``, ``class_features``, ``reject`` and ``layout``.
            workers: processes that decode; None takes one for each core.
            batch_size: frame crops, of several videos, in one pass of the image tower, which bounds the memory; scores
                then depend on the other videos in their last digits. None never mixes videos on a CPU, where it brings
                nothing, so that results are those of ``classify``; elsewhere it takes 128.

        Yields:
            A ``VideoResult`` for each video.

        Raises:
            LabelError, ConfigError: as ``classify``, before any video is read.
            BackendError: processes cannot be started here.
        """
        listed, parsed = self._check_request(labels, views, topk, class_features)
        options = StreamOptions(workers, batch_size, layout)
        check_stream(videos, options)
        return rank_each(self, videos, listed, class_features, parsed, topk, options, refuser_of(self, reject))

    def stream_embeddings(
        self,
        videos: Videos,
        *,
        views: str = "1x1",
        layout: Layout | None = None,
        workers: int | None = None,
        batch_size: int | None = None,
    ) -> Generator[VideoEmbedding, None, None]:
        """Embed one video after another, as ``embed`` does; otherwise as ``stream_results``.

        Yields:
            A ``VideoEmbedding`` for each video.
        """
        options = StreamOptions(workers, batch_size, layout)
        check_stream(videos, options)
        return embed_each(self, videos, self.check_views(views), options)

    @overload
    def embed(
        self, video: Video, *, views: str = ..., layout: Layout | None = ..., errors: Literal["raise"] = ...
    ) -> Tensor: ...

    @overload
    def embed(
        self, video: Video | Videos, *, views: str = ..., layout: Layout | None = ..., errors: Errors = ...
    ) -> Any: ...

    def embed(
        self, video: Video | Videos, *, views: str = "1x1", layout: Layout | None = None, errors: Errors = "raise"
    ) -> Any:
        """Return the video's embedding, float32 [d], L2-normalised: temporal features, averaged over frames and views.

        Without a label set there is no modulation: the temporal features enter in full. For several videos, given and
        read as in ``classify``, it is float32 [N, d]; with ``errors="return"`` a list of embeddings and errors.
        """
        check_choice("errors", errors, Errors)
        parsed = self.check_views(views)

        def together(videos: Videos) -> Generator[VideoEmbedding, None, None]:
            return embed_each(self, videos, parsed, StreamOptions(layout=layout))

        alone = partial(self._embed_one, views=parsed, layout=layout)
        found = collect(video, alone, together, lambda each: each.embedding, errors)
        if not isinstance(found, list) or errors == "return":
            return found
        return torch.stack(found) if found else torch.empty(0, self.clip.embed_dim, device=self.device)

    def _embed_one(self, video: Video, views: Views, layout: Layout | None) -> Tensor:
        return self.embedding_from_features(self.view_features(video, views, layout=layout))

    def fold(self) -> VideoClassifier:
        """Return an equivalent classifier for inference whose experts are merged once; it shares the towers.

        A head that does not merge at inference keeps its experts, see ``VideoHead.fold``.
        """
        self._home.check_threads()
        folded = VideoClassifier(self.clip, self.head.fold(), self.frames)
        for name in _KEPT_BY_FOLD:
            setattr(folded, name, getattr(self, name))
        return folded.train(self.training)

    def quantize(
        self, calibrate: Iterable[str | os.PathLike[str]] | None = None, backend: Int8Backend = "onnxruntime"
    ) -> None:
        """Run the image tower in int8 from now on, see ``mote_fast.clip.int8``. The float weights are kept for saving.

        Args:
            calibrate: paths of videos like those to classify, of which two frames each say how large the activations
                become; None takes drawn videos of the package.
            backend: what runs the tower, "onnxruntime" or "openvino" (the extra `openvino`).

        Raises:
            ConfigError: the tower is not CLIP's ViT in float32 on the CPU, or ``calibrate`` is no list of paths; or
                there is no such backend.
            BackendError: a package is missing.
            VideoError: a video of ``calibrate`` cannot be read.
        """
        check_choice("backend", backend, Int8Backend)
        calibration = Calibration(calibrate, self.decode_backend, self.decode_time_limit)
        tower = Int8Tower(self.clip, calibration=calibration, backend=backend)
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

    def compile(self, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run the image tower through ``torch.compile`` from now on, in place, as ``nn.Module.compile`` does.

        The first call compiles, for any number of frames. On a CPU the gain is small: for ViT-B/16 compiling took 40 s,
        after which frames took 0 to 8% less time, and whole videos no less. The head and the text tower stay eager:
        they are a few percent of a video's work. On a GPU, models compile by themselves once there is enough work, see
        ``compile`` of ``mote_fast.load``.

        Args:
            options: keyword arguments of ``torch.compile``.

        Raises:
            ConfigError: the model is int8, and its image tower runs in ONNX Runtime or OpenVINO.
            BackendError: at the first call: the compiler fails.
        """
        if self.int8 is not None:
            raise ConfigError("the image tower of an int8 model is not PyTorch's, and cannot be compiled; leave it out")
        self.clip.compiler.compile(**options)

    def save(self, folder: str | Path, *, format: FolderFormat = "mote_fast") -> None:
        """Write the model to ``folder`` (config.json and model.safetensors), atomically; ``mote_fast.load`` reads it.

        The folder is complete: it also holds the configuration and tokenizer of a text tower from transformers, and the
        class names and prompts of the training.

        Args:
            folder: the folder; an earlier model in it is replaced.
            format: "open_clip" writes the image and text towers alone, with their preprocessing and a tokenizer of
                transformers, so that ``open_clip.create_model_and_transforms("local-dir:FOLDER")`` gives the same
                features. Not in it: the temporal head (so no MoTE), class names, prompts, and the number of frames.

        Raises:
            CheckpointError: the folder holds something else, or cannot be written.
            ConfigError: there is no such format, or open_clip's has no place for the text tower or its tokenizer.
        """
        check_choice("format", format, FolderFormat)
        if format == "open_clip":
            return write_open_clip_folder(folder, self.clip)
        tensors = {f"clip.{name}": value for name, value in self.clip.model.state_dict().items()}
        tensors |= {f"head.{name}": value for name, value in self.head.state_dict().items()}
        write_model_folder(folder, self.config.to_json(), tensors, partial(write_text_files, self.clip))

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = MESSAGE,
        license: str | None = None,
        results: Sequence[Mapping[str, Any]] = (),
        card: str | None = None,
    ) -> str:
        """Upload the model to the Hugging Face hub as one commit, with a card; ``mote_fast.load`` reads it there.

        Args:
            repository: "ORGANIZATION/NAME"; made if it does not exist.
            private: whether a new repository is private (None: as the organization has it); an existing one must be as
                stated.
            token: of an account that may write there; None takes the one that `hf auth login` stored, or HF_TOKEN.
            revision: the branch, made if it does not exist; None takes the main branch.
            commit_message: of the commit.
            license: the licence of the weights, in the hub's spelling ("apache-2.0"); None states none.
            results: documents of ``result.json``, which ``mote-fast eval --output`` writes; the card shows them.
            card: the whole text of the card, README.md. None writes one from the configuration and the results; without
                results, a card that the repository has already stays.

        Returns:
            The address of the commit.

        Raises:
            CheckpointError: the hub refuses the upload, or cannot be reached.
            ConfigError: an argument is malformed, or the repository exists and is not as private as stated.
        """
        with TemporaryDirectory() as folder:
            self.save(Path(folder) / "model")
            return push_folder(
                Path(folder) / "model",
                repository,
                private=private,
                token=token,
                revision=revision,
                message=commit_message,
                license=license,
                results=results,
                card=card,
                caution=self.caution,
            )

    def _check_request(
        self, labels: Labels | None, views: str, topk: int | None, class_features: Tensor | None
    ) -> tuple[list[str], Views]:
        if topk is not None:
            check_count("topk", topk, 1)
        labels = self.classes if labels is None else labels
        if labels is None:
            raise LabelError("no labels: this model records no class names of its own; give a list of them")
        listed = labels_of(labels)
        if class_features is not None:
            expected = [len(listed), self.clip.embed_dim]
            if not isinstance(class_features, Tensor) or list(class_features.shape) != expected:
                found = list(getattr(class_features, "shape", ())) or type(class_features).__name__
                raise ConfigError(f"class_features must be a tensor {expected} for {len(listed)} labels, got {found}")
        return listed, self.check_views(views)
