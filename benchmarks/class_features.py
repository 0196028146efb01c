"""Stage "text": the class features of a label set, by the padded recipe, by each shortcut alone, and from the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import flops
import torch
from harness import OFFICIAL, OURS, Arm, Workload, gemm, measure
from official import encode_labels
from rows import Row
from setting import LABELS, Setting
from torch import Tensor
from torch.nn import functional as F

from mote_fast.clip import TEMPLATES, ClipTowers, FeatureCache, encode_classes
from mote_fast.clip.class_features import TOKENS_PER_BATCH
from mote_fast.clip.transformer import KeysValues

FEATURES = f"class features, {LABELS} labels"
CACHED, SHORT, SHARED_PADDED = "mote_fast, from the cache", "short context", "shared prefixes, padded"
# Labels that an arm measures; times are scaled to the whole set. Shared prefixes are paid once for all labels: scaled
# up from a part of them, that arm looks slower than it is, so its part is the largest.
PADDED_LABELS, SHORT_LABELS, SHARED_LABELS = 4, 40, 100


def text(setting: Setting) -> Iterator[Row]:
    """Encode the label set, or the part of it that an arm measures."""
    towers, labels = setting.model.clip, setting.labels
    padded, short, shared = (1, 4, 8) if setting.quick else (PADDED_LABELS, SHORT_LABELS, SHARED_LABELS)
    known = labels[: shared if setting.quick else len(labels)]
    cache = FeatureCache(setting.folder / "class_features")
    encode_classes(towers, known, cache=cache)
    width, layers = (towers.config.model["text_cfg"][key] for key in ("width", "layers"))
    context = towers.tokenizer(["a"]).shape[1]

    def arm(name: str, encode: Callable[..., Tensor], count: int, work: float | None = None) -> Arm:
        return Arm(name, partial(encode, towers, labels[:count]), scale=len(labels) / count, flops=work)

    work = flops.text_tower(padded * len(TEMPLATES), context, width, layers, towers.embed_dim)
    arms = [
        arm(OFFICIAL, encode_labels, padded, work),
        arm(SHORT, encode_short, short),
        arm(SHARED_PADDED, encode_shared_padded, padded),
        arm(OURS, encode_classes, shared),
        # Most of it is the tower's fingerprint, which does not grow with the labels.
        Arm(CACHED, partial(encode_in_new_process, towers, known, cache)),
        gemm(len(TEMPLATES) * context, width, setting),
    ]
    yield from measure(Workload("text", FEATURES, arms, 3, warmup=0), setting)


@torch.no_grad()
def encode_short(towers: ClipTowers, labels: Sequence[str]) -> Tensor:
    """Every prompt at the length it needs, from its first token on: no prefix is shared."""
    tokens = towers.tokenizer([template.format(label) for label in labels for template in TEMPLATES])
    ends = towers.end_positions(tokens)
    prompts = torch.empty(len(tokens), towers.embed_dim, device=towers.device)
    for end in ends.unique():
        for rows in (ends == end).nonzero().squeeze(1).split(TOKENS_PER_BATCH // (int(end) + 1)):
            prompts[rows] = F.normalize(towers.encode_tokens(tokens[rows]).float(), dim=-1)
    return F.normalize(prompts.unflatten(0, (len(labels), -1)).mean(1), dim=-1)


@torch.no_grad()
def encode_shared_padded(towers: ClipTowers, labels: Sequence[str]) -> Tensor:
    """Every template's words run once, what follows padded to 77 positions: prefixes are shared, context is not cut."""
    features = torch.zeros(len(labels), towers.embed_dim, device=towers.device)
    for template in TEMPLATES:
        tokens = towers.tokenizer([template.format(label) for label in labels]).to(towers.device)
        shared = towers.tokenizer([template.split("{}")[0].rstrip()])
        # The start token and the template's words; its end-of-text token is not shared.
        prefix = int(towers.end_positions(shared))
        past = [
            KeysValues(block.keys.expand(len(labels), -1, -1, -1), block.values.expand(len(labels), -1, -1, -1))
            for block in towers.prefix_keys_values(tokens[:1, :prefix])
        ]
        ends = towers.end_positions(tokens) - prefix
        features += F.normalize(towers.encode_suffixes(tokens[:, prefix:], ends, past, prefix).float(), dim=-1)
    return F.normalize(features, dim=-1)


def encode_in_new_process(towers: ClipTowers, labels: Sequence[str], cache: FeatureCache) -> Tensor:
    """What the cache costs a new process: it has hashed nothing, and towers around the same modules have not either."""
    fresh = ClipTowers(towers.model, towers.config, towers.tokenizer, towers.attention)
    return encode_classes(fresh, labels, cache=cache)
