"""Accuracy over the share of the fine-tuned image tower in its interpolation with the original CLIP's (eq. (21))."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mote_fast.analysis.tables import to_csv
from mote_fast.data.loading.video_loader import VideoLoader
from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.evaluation.combine import harmonic_mean
from mote_fast.evaluation.predict import Judge, LabelSet, Predictions, judge_by_head, judge_videos
from mote_fast.evaluation.protocols import Accuracy
from mote_fast.head.video_head import VideoHead
from mote_fast.model.checkpoint import load
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.original import image_tower, load_original
from mote_fast.runtime.progress import Progress


class InterpolatedTowers:
    """The image tower of a model at several shares of its fine-tuning, run over the same pixels one after another.

    The model's own tower serves for each share in turn, so that no more than three copies are held. Shares are mixed in
    float32; the model may be converted to another type afterwards.

    Args:
        model: the model, with its tuned image tower, float32.
        original: float32, the image tower's tensors of the original CLIP, with the names of the model's.
        shares: the shares of the tuned tower, in [0, 1].
    """

    def __init__(self, model: VideoClassifier, original: Mapping[str, Tensor], shares: Sequence[float]) -> None:
        self.model = model
        self.shares = tuple(shares)
        self.tuned = {name: tensor.clone() for name, tensor in image_tower(model.clip).items()}
        self.original = {name: original[name].to(tensor) for name, tensor in self.tuned.items()}

    @torch.no_grad()
    def encode_frames(self, pixels: Tensor) -> Tensor:
        """Encode frames at each share.

        Args:
            pixels: [N, 3, S, S], normalised.

        Returns:
            [N, shares * d], the features of one share after those of another.
        """
        return torch.cat([self._encode_at(share, pixels) for share in self.shares], dim=-1)

    def _encode_at(self, share: float, pixels: Tensor) -> Tensor:
        for name, tensor in image_tower(self.model.clip).items():
            # As in loading a released checkpoint, to the last bit.
            tensor.copy_(share * self.tuned[name] + (1.0 - share) * self.original[name])
        return self.model.encode_frames(pixels)


@dataclass(frozen=True)
class SharePoint:
    """The model at one share of its fine-tuned image tower.

    Attributes:
        share: share of the tuned tower; the rest is the original's.
        close_set: accuracy on classes of fine-tuning, percent; NaN if no video could be read.
        zero_shot: accuracy on other classes.
    """

    share: float
    close_set: Accuracy
    zero_shot: Accuracy

    @property
    def score(self) -> float:
        """Harmonic mean of both top-1 accuracies."""
        return harmonic_mean([self.close_set.top1, self.zero_shot.top1])


def check_shares(shares: Sequence[float]) -> None:
    """Check the shares of a sweep.

    Raises:
        ConfigError: there are fewer than two, one lies outside [0, 1], or two are equal.
    """
    if len(shares) < 2 or len(set(shares)) < len(shares) or not all(0.0 <= share <= 1.0 for share in shares):
        given = " ".join(f"{share:g}" for share in shares)
        raise ConfigError(f"shares must be at least two different numbers in [0, 1], got {given or 'none'}")


def load_with_original(
    checkpoint: str, clip: str, frames: int, device: torch.device | str
) -> tuple[VideoClassifier, dict[str, Tensor]]:
    """Load a model with its tuned image tower alone, and the tensors of the image tower that it was tuned from.

    Args:
        checkpoint: a released .pt file or a model folder.
        clip: the original CLIP: a weights file or an open_clip tag; it is not read from a folder.
        frames: T, frames per view of a released file.
        device: device of the model, which is float32; the original's tensors are on the CPU.

    Raises:
        CheckpointError: a file is missing, damaged or does not fit; the CLIP is another one than the model's; or the
            model is interpolated already.
        ActivationMismatchError: the CLIP was trained with another activation than the model.
    """
    if Path(checkpoint).is_file():
        original = load(checkpoint, clip=clip, interpolate=0.0, frames=frames)
        model = load(checkpoint, clip=clip, interpolate=1.0, frames=frames, device=device)
        return model, image_tower(original.clip)
    model = load(checkpoint, interpolate=1.0, device=device)
    if model.tuned_share != 1.0:
        raise CheckpointError(
            f"{checkpoint}: has an interpolated image tower already, with {model.tuned_share:g} of the tuned one"
        )
    return model, load_original(model.clip, model.original, clip, checkpoint)


def predict_shares(
    towers: InterpolatedTowers, loader: VideoLoader, class_features: Tensor, *, progress: Progress | None = None
) -> list[Predictions]:
    """Classify every video of a loader at each share; each video is decoded once.

    The predictions of a share are those of ``predict`` for the model that ``load`` gives with ``interpolate=share``.

    Args:
        towers: the model's image tower at each share.
        loader: a loader for evaluation of this process's share of the videos.
        class_features: [C, d], class features of the candidate labels; the text tower is never tuned.
        progress: as in ``predict``.
    """
    model = towers.model
    with torch.no_grad():
        head = model.fold().head.eval()
    width = model.clip.embed_dim
    judges = [
        Judge(LabelSet(class_features), partial(_judge_part, head, slice(at * width, (at + 1) * width)))
        for at in range(len(towers.shares))
    ]
    return judge_videos(model, loader, judges, progress, towers.encode_frames)


def share_csv(points: Sequence[SharePoint]) -> str:
    """Return one line for each share."""
    header = ["share", "close_set_top1", "close_set_top5", "zero_shot_top1", "zero_shot_top5", "trade_off"]
    return to_csv(header, ([each.share, *each.close_set, *each.zero_shot, each.score] for each in points))


def _judge_part(
    head: VideoHead, part: slice, frame_features: Tensor, class_features: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """See ``Judge.scores``; the features of one share are a part of the last dimension."""
    return judge_by_head(head, frame_features[..., part].contiguous(), class_features, indices)
