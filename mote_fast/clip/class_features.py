"""Class features: 28 prompts per label, encoded exactly and with little work (eq. (16)).

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
from mote_fast.clip.towers import ClipTowers
from mote_fast.clip.transformer import KeysValues
from mote_fast.errors import LabelError
from mote_fast.runtime.checks import check_finite
from mote_fast.runtime.progress import Progress
from mote_fast.runtime.text import is_text

log = logging.getLogger(__name__)

_OPENINGS = ("a photo of", "a video of", "a example of", "a demonstration of")
_MIDDLES = (
    "{}.",
    "a person {}.",
    "a person using {}.",
    "a person doing {}.",
    "a person during {}.",
    "a person performing {}.",
    "a person practicing {}.",
)
# The paper's 28 prompts, grammar included.
TEMPLATES = tuple(f"{opening} {middle}" for opening in _OPENINGS for middle in _MIDDLES)

# Labels tokenised per chunk; bounds memory, and is enough to fill the batches.
LABELS_PER_CHUNK = 256
# Token positions per forward pass: enough to saturate the matrix products, few enough to fit the caches (1024 and 2048
# were best of 512 to 8192 for ViT-B/16 on a CPU; the smaller takes 0.6 of the memory).
TOKENS_PER_BATCH = 1024
# A token of CLIP has at most 32 characters, so that 77 of them hold no more than 2,464. The tokenizer's time grows with
# the square of a word's length: 2,000 characters take a second, a million would take days.
MAX_WORD_CHARACTERS = 2_000
# With fewer labels, running the prefixes separately costs more than it saves.
FEWEST_TO_SHARE = 4


def encode_classes(
    towers: ClipTowers,
    labels: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    *,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Encode a label set as class features: each prompt normalised, averaged over templates, normalised.

    The order of the labels is kept, and duplicates give equal rows. There may be any number of labels, in any language
    (the tokenizer falls back to bytes; accuracy depends on how well CLIP knows the words). A label whose prompts do not
    fit the tower's context is truncated at its end, as in open_clip's tokenizer, with a warning.

    Args:
        towers: the text tower and its tokenizer.
        labels: class names, at least one, each not blank.
        templates: prompts with one "{}" each.
        cache: cache of features; None computes all.
        progress: called with the number of prompts finished since the last call, ``C * len(templates)`` in all.

    Returns:
        float32 [C, d] on the towers' device, L2-normalised rows.

    Raises:
        LabelError: see ``check_labels``.
        NotFiniteError: the text tower gives NaN or infinity.
    """
    check_labels(labels)
    distinct = list(dict.fromkeys(labels))
    known: dict[str, Tensor] = {}
    space = ""
    if cache is not None:
        space = FeatureCache.space(towers.text_fingerprint(), str(towers.dtype), *templates)
        known = cache.read(space, distinct, towers.embed_dim)
    if progress is not None and known:
        progress(len(known) * len(templates))
    missing = [label for label in distinct if label not in known]
    for start in range(0, len(missing), LABELS_PER_CHUNK):
        chunk = missing[start : start + LABELS_PER_CHUNK]
        encoded = _encode_chunk(towers, chunk, templates, progress).cpu()
        check_finite(encoded, "class features")
        fresh = dict(zip(chunk, encoded, strict=True))
        known |= fresh
        if cache is not None:
            cache.write(space, fresh)
    return torch.stack([known[label] for label in labels]).to(towers.device)


def check_labels(labels: Sequence[str]) -> None:
    """Check a label set.

    Raises:
        LabelError: the list is empty, is a bare string, or has an entry that is not a string, is blank, has a word
            of over ``MAX_WORD_CHARACTERS``, or holds bytes that are not UTF-8 (lone surrogates).
    """
    if isinstance(labels, str):
        raise LabelError("labels must be a list of class names, not one string; use labels=[...]")
    if len(labels) == 0:
        raise LabelError("no labels: give at least one class name")
    for position, label in enumerate(labels):
        if not isinstance(label, str):
            raise LabelError(f"labels[{position}] is a {type(label).__name__}, expected a string")
        if not label.strip():
            raise LabelError(f"labels[{position}] is blank: a class name needs at least one visible character")
        longest = max(map(len, label.split()))
        if longest > MAX_WORD_CHARACTERS:
            raise LabelError(
                f"labels[{position}], {label[:40]!r}..., has a word of {longest} characters, over the limit of "
                f"{MAX_WORD_CHARACTERS}: shorten it"
            )
        if not is_text(label):
            raise LabelError(f"labels[{position}] {label!r} is not valid Unicode text; write class names in UTF-8")


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
        log.warning("label %r is longer than the %d tokens of a prompt and was cut at its end", labels[index], context)
