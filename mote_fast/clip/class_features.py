"""Class features: many prompts per label, encoded exactly and with little work (eq. (16)).

Two properties of CLIP's causal text tower make this cheap without changing a feature. Tokens after the end-of-text
token have no effect, so a prompt of 10 tokens needs 10 of the 77 positions. Tokens do not depend on later ones, so the
words before the label ("a photo of a person doing") are run once per template, and every label attends to their keys
and values.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.clip.feature_cache import FeatureCache
from mote_fast.clip.prompts import PAPER_PROMPTS, Prompts
from mote_fast.clip.texts import check_labels
from mote_fast.clip.towers import ClipTowers
from mote_fast.clip.transformer import KeysValues
from mote_fast.errors import quoted
from mote_fast.runtime.checks import check_finite
from mote_fast.runtime.progress import Progress

log = logging.getLogger(__name__)

# Labels tokenised per chunk; bounds memory, and is enough to fill the batches.
LABELS_PER_CHUNK = 256
# Token positions per forward pass: enough to saturate the matrix products, few enough to fit the caches (1024 and 2048
# were best of 512 to 8192 for ViT-B/16 on a CPU; the smaller takes 0.6 of the memory).
TOKENS_PER_BATCH = 1024
# With fewer labels, running the prefixes separately costs more than it saves.
FEWEST_TO_SHARE = 4


def encode_classes(
    towers: ClipTowers,
    labels: Sequence[str],
    prompts: Prompts = PAPER_PROMPTS,
    *,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Encode a label set as class features: each prompt normalised, averaged over templates, normalised.

    Descriptions are encoded as texts of their own and enter as ``Prompts`` says. The order of the labels is kept, and
    duplicates give equal rows. There may be any number of labels, in any language (the tokenizer falls back to bytes;
    accuracy depends on how well CLIP knows the words). A text that does not fit the tower's context is truncated at its
    end, as in open_clip's tokenizer, with a warning. Labels without a description, where others have one, are counted
    in a warning.

    Args:
        towers: the text tower and its tokenizer.
        labels: class names, at least one, each not blank.
        prompts: templates, and descriptions of classes.
        cache: cache of features, of labels by their templates and of descriptions; None computes all.
        progress: called with the number of prompts finished since the last call, ``prompts.count(labels)`` in all.

    Returns:
        float32 [C, d] on the towers' device, L2-normalised rows.

    Raises:
        LabelError: see ``check_labels``; or the prompts describe none of the labels.
        NotFiniteError: the text tower gives NaN or infinity.
    """
    check_labels(labels)
    described = prompts.described(labels)
    by_name = _encode_texts(towers, labels, prompts.templates, cache, progress)
    if described:
        missing = sorted(set(labels) - described.keys())
        if missing:
            total = len(set(labels))
            log.warning("%d of %d classes have no description, such as %s", len(missing), total, quoted(missing[0]))
        texts = list(dict.fromkeys(text for sentences in described.values() for text in sentences))
        place = {text: at for at, text in enumerate(texts)}
        encoded = _encode_texts(towers, texts, ("{}",), cache, progress)
        for row, label in enumerate(labels):
            if label in described:
                about = F.normalize(encoded[[place[text] for text in described[label]]].mean(0), dim=0)
                by_name[row] = F.normalize((1 - prompts.weight) * by_name[row] + prompts.weight * about, dim=0)
    return by_name.to(towers.device)


def _encode_texts(
    towers: ClipTowers,
    texts: Sequence[str],
    templates: Sequence[str],
    cache: FeatureCache | None,
    progress: Progress | None,
) -> Tensor:
    """Return the features of texts within templates, float32 [N, d] on the CPU; each distinct one is encoded once."""
    distinct = list(dict.fromkeys(texts))
    known: dict[str, Tensor] = {}
    space = ""
    if cache is not None:
        space = FeatureCache.space(towers.text_fingerprint(), str(towers.dtype), *templates)
        known = cache.read(space, distinct, towers.embed_dim)
    if progress is not None and known:
        progress(len(known) * len(templates))
    missing = [text for text in distinct if text not in known]
    for start in range(0, len(missing), LABELS_PER_CHUNK):
        chunk = missing[start : start + LABELS_PER_CHUNK]
        encoded = _encode_chunk(towers, chunk, templates, progress).cpu()
        check_finite(encoded, "class features")
        fresh = dict(zip(chunk, encoded, strict=True))
        known |= fresh
        if cache is not None:
            cache.write(space, fresh)
    return torch.stack([known[text] for text in texts])


@torch.no_grad()
def _encode_chunk(
    towers: ClipTowers, labels: Sequence[str], templates: Sequence[str], progress: Progress | None
) -> Tensor:
    """Return float32 [C, d], the class features of distinct labels."""
    prompts = [template.format(label) for template in templates for label in labels]
    tokens = towers.tokenizer(prompts)
    _warn_of_cut_labels(towers, tokens, labels)
    features = torch.zeros(len(labels), towers.embed_dim, device=towers.device)
    for rows, encoded in _encode_prompts(towers, tokens, len(labels)):
        label_of_row = (rows % len(labels)).to(features.device)
        features.index_add_(0, label_of_row, F.normalize(encoded.float(), dim=-1))
        if progress is not None:
            progress(len(rows))
    return F.normalize(features / len(templates), dim=-1)


def _encode_prompts(towers: ClipTowers, tokens: Tensor, labels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Encode ``tokens [templates * labels, context]``, template by template, yielding rows and their features."""
    if not towers.is_plain_text_tower or labels < FEWEST_TO_SHARE:
        whole = torch.full((len(tokens),), tokens.shape[1])
        lengths = towers.end_positions(tokens) + 1 if towers.is_plain_text_tower else whole
        order = lengths.argsort(stable=True)
        for batch in _split_by_tokens(lengths[order]):
            yield order[batch], towers.encode_tokens(tokens[order[batch]])
        return
    ends = towers.end_positions(tokens)
    prefixes = [_shared_prefix(block, end) for block, end in zip(tokens.split(labels), ends.split(labels), strict=True)]
    prefix_of_row = torch.tensor(prefixes).repeat_interleave(labels)
    for length in sorted(set(prefixes)):
        rows = (prefix_of_row == length).nonzero().squeeze(1)
        yield from _encode_after_prefix(towers, tokens, ends, rows, length, labels)


def _encode_after_prefix(
    towers: ClipTowers, tokens: Tensor, ends: Tensor, rows: Tensor, length: int, labels: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Encode the prompts ``rows``, whose templates share ``length`` leading tokens each, shortest prompts first."""
    template_of_row, first_row = torch.unique(rows // labels, return_inverse=True)
    prefix_rows = template_of_row * labels
    past = towers.prefix_keys_values(tokens[prefix_rows, :length].to(towers.device))
    order = ends[rows].argsort(stable=True)
    rows, template = rows[order], first_row[order]
    for batch in _split_by_tokens(ends[rows] + 1 - length):
        picked = template[batch].to(towers.device)
        # One block at a time: copies of all blocks for every prompt would dominate memory.
        batch_past = (KeysValues(block.keys[picked], block.values[picked]) for block in past)
        batch_rows = rows[batch]
        batch_ends = ends[batch_rows] - length
        suffixes = tokens[batch_rows, length : length + int(batch_ends.max()) + 1]
        yield (
            batch_rows,
            towers.encode_suffixes(suffixes.to(towers.device), batch_ends.to(towers.device), batch_past, length),
        )


def _shared_prefix(tokens: Tensor, ends: Tensor) -> int:
    """The number of leading tokens that all prompts ``tokens [C, context]`` share, without end-of-text tokens."""
    differs = (tokens != tokens[0]).any(0)
    shared = int(differs.int().argmax()) if bool(differs.any()) else tokens.shape[1]
    return min(shared, int(ends.min()))


def _split_by_tokens(lengths: Tensor) -> Iterator[slice]:
    """Split ascending ``lengths [N]`` into slices of about ``TOKENS_PER_BATCH`` padded tokens."""
    start = 0
    for stop in range(1, len(lengths) + 1):
        full = stop == len(lengths) or (stop + 1 - start) * int(lengths[stop]) > TOKENS_PER_BATCH
        if full:
            yield slice(start, stop)
            start = stop


def _warn_of_cut_labels(towers: ClipTowers, tokens: Tensor, labels: Sequence[str]) -> None:
    """Warn of labels whose prompts fill the context to its last position: they may have been truncated."""
    context = tokens.shape[1]
    full = (
        (towers.end_positions(tokens) == context - 1) if towers.is_plain_text_tower else torch.zeros(len(tokens)).bool()
    )
    for index in sorted({int(row) % len(labels) for row in full.nonzero()}):
        log.warning("%r is longer than the %d tokens of a prompt and was cut at its end", labels[index], context)
