"""The baseline of every benchmark: the official recipe in plain PyTorch, same algorithm and order of work.

Loading decodes with decord, one reader and one thread a video, and transforms frame by frame with Pillow and
torchvision. The towers are open_clip's own modules with ``nn.MultiheadAttention``. Text is encoded again at each start,
all 77 positions of 28 prompts a label. The head has one pair of ``nn.Linear`` per expert and merges them by a loop over
experts at every forward; zero-shot evaluation runs it twice, once for the logits of the running accuracy and once for
the features of the full-class one. Training runs the two streams one after the other, and leaves dense gradients to
``torch.optim.AdamW``. Only random choices are ours, so that both arms do the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import functional as TF
from torchvision.transforms.functional import InterpolationMode

from mote_fast import VideoHead
from mote_fast.clip import TEMPLATES, ClipTowers
from mote_fast.data.plan import ClipPlan
from mote_fast.data.transforms import CLIP_MEAN, CLIP_STD
from mote_fast.head.experts import merge_weights
from mote_fast.head.modulation import modulation_factor
from mote_fast.head.scores import view_scores
from mote_fast.head.temporal_block import LAYER_NORM_EPS
from mote_fast.head.video_head import cosine_logits
from mote_fast.kernels.reference import EXPANSION, unpack_expert


def read(path: Path | str, indices: Sequence[int]) -> np.ndarray:
    """Decode frames with decord: uint8 [N, H, W, 3]."""
    try:
        import decord
    except ImportError as error:
        raise SystemExit("the official recipe decodes with decord: pip install 'mote_fast[bench]'") from error
    return decord.VideoReader(str(path), num_threads=1).get_batch(list(indices)).asnumpy()


def transform(frames: np.ndarray, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale, crop and normalise frames one by one for evaluation: float32 [N, 3, size, size]."""
    images = [
        TF.center_crop(TF.resize(Image.fromarray(frame), size, InterpolationMode.BICUBIC), [size, size])  # pyright: ignore[reportArgumentType]
        for frame in frames
    ]
    return _normalised(images, mean, std)


def load_clip(path: str, plan: ClipPlan, size: int) -> Tensor:
    """The one view that ``plan`` asks for, of a file: float32 [T, 3, size, size], normalised."""
    frames = read(path, plan.views.frame_indices.tolist())
    images = [_planned(Image.fromarray(frames[at]), plan, size) for at in plan.views.positions[0].tolist()]
    return _normalised(images, CLIP_MEAN, CLIP_STD)


def _planned(image: Image.Image, plan: ClipPlan, size: int) -> Image.Image:
    geometry, box = plan.geometry, plan.geometry.boxes[0]
    image = TF.resize(image, list(geometry.scaled), InterpolationMode.BICUBIC)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    image = TF.crop(image, *box)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    if image.size != (size, size):
        image = TF.resize(image, [size, size], InterpolationMode.BILINEAR)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    if geometry.flip:
        image = TF.hflip(image)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    return TF.to_grayscale(image, 3) if geometry.grayscale else image


def _normalised(images: Sequence[object], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    # Frames are stacked along the channels, as the official transforms do.
    stacked = np.concatenate([np.asarray(image) for image in images], axis=2)
    tensor = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255)
    shift = torch.tensor(tuple(mean) * len(images))[:, None, None]
    scale = torch.tensor(tuple(std) * len(images))[:, None, None]
    return tensor.sub_(shift).div_(scale).unflatten(0, (len(images), 3))


@torch.no_grad()
def encode_labels(towers: ClipTowers, labels: Sequence[str]) -> Tensor:
    """Class features [C, d]: every prompt at all 77 positions, the 28 of a label in one batch."""
    rows = []
    for label in labels:
        tokens = towers.tokenizer([template.format(label) for template in TEMPLATES]).to(towers.device)
        prompts = F.normalize(towers.model.encode_text(tokens), dim=-1)
        rows.append(F.normalize(prompts.mean(0), dim=0))
    return torch.stack(rows)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


class OfficialExperts(nn.Module):
    """E separate FFNs; the merged stream sums their parameters one by one."""

    def __init__(self, embed_dim: int, experts: int) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(embed_dim, EXPANSION * embed_dim) for _ in range(experts))
        self.down = nn.ModuleList(nn.Linear(EXPANSION * embed_dim, embed_dim) for _ in range(experts))

    def routed(self, x: Tensor, expert: int) -> Tensor:
        return self.down[expert](quick_gelu(self.up[expert](x)))

    def merged(self, x: Tensor, weights: Tensor) -> Tensor:
        up_weight, up_bias = merge_linears(self.up, weights)
        down_weight, down_bias = merge_linears(self.down, weights)
        return F.linear(quick_gelu(F.linear(x, up_weight, up_bias)), down_weight, down_bias)


def merge_linears(linears: nn.ModuleList, weights: Tensor) -> tuple[Tensor, Tensor]:
    # The official loop starts from the number 0, so its first addition is a pass of its own.
    weight = bias = cast("Tensor", 0.0)
    for share, linear in zip(weights, cast("list[nn.Linear]", list(linears)), strict=True):
        weight = weight + share * linear.weight
        bias = bias + share * linear.bias
    return weight, bias


class OfficialBlock(nn.Module):
    def __init__(self, embed_dim: int, heads: int, experts: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.attn = nn.MultiheadAttention(embed_dim, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.mlp = OfficialExperts(embed_dim, experts)

    def attend(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        return x + self.attn(y, y, y, need_weights=False)[0]


class OfficialHead(nn.Module):
    """The official head, with the weights of a ``VideoHead``."""

    def __init__(self, head: VideoHead) -> None:
        super().__init__()
        self.frame_positions = nn.Parameter(head.frame_positions.detach().clone())
        self.blocks = nn.ModuleList(
            OfficialBlock(head.embed_dim, head.config.heads, head.experts) for _ in range(head.layers)
        )
        self.to(head.frame_positions)
        self.load_state_dict({k: v for k, v in head.state_dict().items() if ".mlp." not in k}, strict=False)
        for mine, stack in zip(self.layers(), stacks_of(head), strict=True):
            for expert, row in enumerate(stack):
                values = unpack_expert(row.detach(), head.embed_dim)
                up, down = mine.mlp.up[expert], mine.mlp.down[expert]
                up.load_state_dict({"weight": values.w_up, "bias": values.b_up})
                down.load_state_dict({"weight": values.w_down, "bias": values.b_down})
        self.train_class_features = head.train_class_features
        # The official fusion vectors: zeros, so a plain average, but a softmax at every forward all the same.
        self.fusion = torch.zeros(head.layers, head.experts, device=head.frame_positions.device)

    def layers(self) -> Iterator[OfficialBlock]:
        return iter(cast("list[OfficialBlock]", list(self.blocks)))

    def forward(self, frames: Tensor, classes: Tensor) -> Tensor:
        """Temporal features ``[B, T, d]`` of ``frames [B, T, d]``, modulated for ``classes [C, d]``."""
        assert self.train_class_features is not None
        x = self._merged(frames, self.fusion.softmax(-1).to(frames.dtype))
        factor = modulation_factor(frames, F.normalize(classes, dim=-1), F.normalize(self.train_class_features, dim=-1))
        return factor.to(x.dtype)[:, None, None] * x + frames

    def loss(
        self,
        frames: Tensor,
        classes: Tensor,
        labels: Tensor,
        logit_scale: float,
        experts: Sequence[int] | Tensor,
        temperatures: Sequence[float] | Tensor,
    ) -> Tensor:
        """Eq. (12): both training streams, one after the other."""
        routed = frames + self.frame_positions[: frames.shape[1]]
        for block, expert in zip(self.layers(), experts, strict=True):
            routed = block.attend(routed)
            routed = routed + block.mlp.routed(block.ln_2(routed), int(expert))
        weights = [merge_weights(self.fusion.shape[1], each).to(frames.device) for each in temperatures]
        routed, merged = routed + frames, self._merged(frames, weights) + frames
        of_routed, of_merged = (
            F.cross_entropy(logit_scale * cosine_logits(stream, classes).float(), labels) for stream in (routed, merged)
        )
        return of_routed + 0.5 * of_merged + 0.1 * F.mse_loss(merged, frames)

    def _merged(self, frames: Tensor, weights: Sequence[Tensor] | Tensor) -> Tensor:
        x = frames + self.frame_positions[: frames.shape[1]]
        for block, each in zip(self.layers(), weights, strict=True):
            x = block.attend(x)
            x = x + block.mlp.merged(block.ln_2(x), each)
        return x


def stacks_of(head: VideoHead) -> list[Tensor]:
    """The parameters [E, P] of every layer's experts."""
    return [value for name, value in head.named_parameters() if name.endswith("mlp.weight")]


def evaluate_views(head: OfficialHead, frames: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """One evaluation step: logits [B, C] from one pass, mean features [B, d] from another."""
    return cosine_logits(head(frames, classes), classes), head(frames, classes).mean(1)


@torch.no_grad()
def classify(
    path: Path, indices: Sequence[int], towers: ClipTowers, head: OfficialHead, classes: Tensor, views: int
) -> Tensor:
    """Score one video [C] from file to scores; ``indices`` are the frames of its views, one view after another."""
    own = towers.config.preprocessing
    pixels = transform(read(path, indices), own.size, own.mean, own.std)
    features = towers.model.encode_image(pixels.to(towers.device, towers.dtype))
    logits, _ = evaluate_views(head, features.unflatten(0, (views, -1)), classes)
    return view_scores(logits, views).squeeze(0)
