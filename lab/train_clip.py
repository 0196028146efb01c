"""Train the tiny CLIP from scratch on pictures of the world and their captions: under 20 minutes on two cores.

    python lab/train_clip.py --output runs/tiny_clip

The towers and the contrastive loss are open_clip's. In addition a linear layer, discarded after training, predicts the
caption's words from the image feature: without it neither tower learns properties that are hard to see (position,
shape). Pictures are drawn once and shown in every epoch with new captions, shifts and brightness. The output is a model
folder for train.py's ``model.checkpoint`` and for lab/tradeoff.py: these towers, and a fresh MoTE head.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from world.draw import Scenes, draw
from world.stills import caption, still_scenes
from world.words import vocabulary

from mote_fast.clip.clip_config import ClipConfig
from mote_fast.clip.pretrained import build_towers
from mote_fast.clip.tokens import BASE_TOKENS, merges_for
from mote_fast.clip.towers import ClipTowers
from mote_fast.data.transforms import normalize
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import VideoHead
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.model_config import DEFAULT_LAYERS
from mote_fast.model.model_defaults import DEFAULT_EXPERTS, DEFAULT_FRAMES
from mote_fast.runtime.seeding import generator_of

SIZE = 64
log = logging.getLogger(__name__)

# Pictures drawn per batch; bounds memory, and decides with the seed which pictures are drawn.
DRAWN_AT_ONCE = 256
# Largest shift of a picture, pixels.
SHIFT = 3
# CLIP's bound on the logit scale.
LARGEST_SCALE = math.log(100)
# At open_clip's own scale patches outweigh their positions five to one, and positions are learnt late or never.
POSITIONS_SCALE = 4.0


def tiny_config() -> ClipConfig:
    """The towers: CLIP's architecture, with the merges that the world's words need."""
    merges = merges_for(vocabulary())
    vision = {"image_size": SIZE, "layers": 3, "width": 128, "patch_size": 16, "head_width": 32}
    text = {"context_length": 77, "vocab_size": BASE_TOKENS + len(merges), "width": 128, "heads": 2, "layers": 2}
    model = {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    return ClipConfig.of_clip(model, merges=merges)


class Pictures:
    """Drawn pictures, and batches of them with captions."""

    def __init__(self, count: int, seed: int) -> None:
        self.seed = seed
        self.scenes: list[Scenes] = []
        parts: list[Tensor] = []
        for number in tqdm(range(math.ceil(count / DRAWN_AT_ONCE)), desc="drawing", unit="batch", disable=None):
            random = generator_of(seed, "stills", number)
            self.scenes.append(still_scenes(DRAWN_AT_ONCE, random))
            parts.append(draw(self.scenes[-1], SIZE + 2 * SHIFT, SIZE + 2 * SHIFT, random))
        self.pixels = torch.cat(parts)

    def batches(self, batch: int) -> Iterator[tuple[Tensor, list[str]]]:
        """Yield pixels float32 [batch, 3, S, S], normalised, and captions, forever."""
        for epoch in range(10**6):
            random = generator_of(self.seed, "epoch", epoch)
            order = torch.randperm(len(self.pixels), generator=random)
            for rows in order.split(batch):
                if len(rows) == batch:
                    yield self._shown(rows, random), [self._told(row, random) for row in rows.tolist()]

    def _told(self, row: int, random: torch.Generator) -> str:
        return caption(self.scenes[row // DRAWN_AT_ONCE], row % DRAWN_AT_ONCE, random)

    def _shown(self, rows: Tensor, random: torch.Generator) -> Tensor:
        top, left = torch.randint(2 * SHIFT + 1, (2,), generator=random).tolist()
        pixels = self.pixels[rows, top : top + SIZE, left : left + SIZE].permute(0, 3, 1, 2)
        light = 0.9 + 0.2 * torch.rand(len(rows), 1, 1, 1, generator=random)
        return normalize((pixels * light).clamp_(0, 255))


def word_loss(scores: Tensor, tokens: Tensor) -> Tensor:
    """Cross entropy of ``scores [B, vocabulary]`` with the captions' words, equally weighted; ``tokens: [B, L]``.

    It is similar to training on words instead of pairs (Joulin et al., ECCV 2016; SuperClass, NeurIPS 2024).
    """
    words = torch.zeros_like(scores).scatter_(1, tokens, 1.0)
    # Padding, and the tokens that begin and end every caption.
    words[:, 0] = words[:, -2:] = 0
    return F.cross_entropy(scores, words / words.sum(-1, keepdim=True))


def train(options: argparse.Namespace) -> tuple[ClipTowers, list[dict[str, float]]]:
    """Train, and return the towers and a log of losses."""
    torch.manual_seed(options.seed)
    towers = build_towers(tiny_config()).train()
    with torch.no_grad():
        towers.model.visual.positional_embedding.mul_(POSITIONS_SCALE)
    words = nn.Linear(towers.embed_dim, towers.config.model["text_cfg"]["vocab_size"])
    pictures = Pictures(options.pictures, options.seed)
    trained = [*towers.parameters(), *words.parameters()]
    decayed = [each for each in trained if each.ndim > 1]
    others = [each for each in trained if each.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98))
    loss_of, batches, history = ClipLoss(), pictures.batches(options.batch), []
    begun = time.perf_counter()
    bar = tqdm(range(options.steps), desc="training", unit="step", disable=None)
    for step in bar:
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * warm * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        pixels, captions = next(batches)
        tokens = towers.tokenizer(captions)
        tokens = tokens[:, : int(towers.end_positions(tokens).max()) + 1]
        features = towers.encode_frames(pixels)
        images = F.normalize(features, dim=-1)
        texts = F.normalize(towers.encode_tokens(tokens), dim=-1)
        loss = loss_of(images, texts, towers.logit_scale)
        optimizer.zero_grad()
        (loss + word_loss(words(features), tokens)).backward()
        optimizer.step()
        with torch.no_grad():
            towers.model.logit_scale.clamp_(0, LARGEST_SCALE)
        if (step + 1) % 100 == 0 or step + 1 == options.steps:
            found = (images @ texts.t()).argmax(-1).eq(torch.arange(len(images))).float().mean().item()
            history.append({"step": step + 1, "loss": loss.item(), "matched": found})
            bar.set_postfix(loss=f"{loss.item():.3f}", matched=f"{found:.0%}")
            log.info("step %d of %d: loss %.3f, matched %.0f %%", step + 1, options.steps, loss.item(), 100 * found)
    history[-1]["seconds"] = time.perf_counter() - begun
    return towers.eval(), history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/tiny_clip"), help="model folder to write")
    parser.add_argument("--pictures", type=int, default=20480)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    towers, history = train(options)
    torch.manual_seed(options.seed)
    # docs/tradeoff.md explains why modulation is off.
    heads = towers.config.text_heads
    head = VideoHead(HeadConfig(towers.embed_dim, heads, DEFAULT_LAYERS, DEFAULT_EXPERTS, modulation=False))
    VideoClassifier(towers, head, DEFAULT_FRAMES).eval().save(options.output)
    settings: dict[str, Any] = {name: str(value) for name, value in vars(options).items()}
    log = {"settings": settings, "history": history}
    (options.output.parent / f"{options.output.name}.json").write_text(json.dumps(log, indent=1) + "\n")


if __name__ == "__main__":
    main()
