"""The result of text-video retrieval as one JSON document and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mote_fast.errors import ConfigError
from mote_fast.evaluation.captions import CaptionedVideos
from mote_fast.evaluation.predict import Embeddings
from mote_fast.evaluation.protocol_names import ALL, READABLE
from mote_fast.evaluation.report import REPORT_FILE, RESULT_FILE
from mote_fast.evaluation.retrieval_ranks import RECALL_AT, Ranks, retrieval_ranks, summarize_ranks
from mote_fast.runtime.files import write_bytes
from mote_fast.runtime.json_text import finite, to_json
from mote_fast.runtime.text import markdown, printable

RETRIEVAL_FILES = (REPORT_FILE, RESULT_FILE)

DIRECTIONS = ("text_to_video", "video_to_text")

_FIGURES = (*(f"R@{limit}" for limit in RECALL_AT), "median_rank", "mean_rank")

_EXPLANATION = f"""\
- R@K: percentage of queries whose answer is among the K most similar candidates. Ranks count from 1.
- text_to_video: the rank of the caption's video. video_to_text: the rank of the video's most similar caption among the
  captions of the other videos.
- A tie counts against the model: a wrong candidate that is as similar as the right one is ranked before it.
- {READABLE}: over the videos that could be read, and their captions. {ALL}: over all listed ones; a video that could
  not be read is less similar to every caption than all others."""


def retrieval_document(
    listed: CaptionedVideos, videos: Embeddings, texts: Tensor, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Rank the videos and captions of a list, and return the result as a JSON document.

    Args:
        listed: V videos and C captions.
        videos: embeddings of the readable videos, their indices those of ``listed.items``.
        texts: [C, d], embeddings of the captions, unit length.
        facts: further values to record: ``dataset``, its name, and for example the checkpoint and the views.

    Returns:
        ``facts`` and: ``protocol``, "retrieval"; the numbers of ``videos``, ``captions`` and ``failed`` videos;
        ``failures``; and for each of ``DIRECTIONS`` and of "readable" and "all" the number of ``queries`` and "R@1",
        "R@5", "R@10", "median_rank" and "mean_rank", null without queries.

    Raises:
        ConfigError: a video is neither among the embeddings nor among their failures.
    """
    count = len(listed.items)
    read = torch.zeros(count, dtype=torch.bool)
    read[videos.indices] = True
    skipped = set((~read).nonzero().squeeze(1).tolist()) - {failure.index for failure in videos.failures}
    if skipped:
        raise ConfigError(f"the loader silently skipped video {min(skipped)} of the list")
    features = torch.zeros(count, texts.shape[1])
    features[videos.indices] = videos.features
    texts = texts.cpu()
    kept = read[listed.video_of]
    among_read = (read.cumsum(0) - 1)[listed.video_of[kept]]
    ranks = {
        READABLE: retrieval_ranks(videos.features, texts[kept], among_read),
        ALL: retrieval_ranks(features, texts, listed.video_of, read),
    }
    return {
        **facts,
        "protocol": "retrieval",
        "videos": count,
        "captions": len(listed.captions),
        "failed": len(videos.failures),
        **{direction: {of: _entry(each, direction) for of, each in ranks.items()} for direction in DIRECTIONS},
        "failures": [{"path": each.path, "kind": each.kind, "reason": each.reason} for each in videos.failures],
    }


def retrieval_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the figures of a document as the lines of a Markdown table; the second half only if a video failed."""
    lines = [_row("direction", "videos", "queries", *_FIGURES), _row(*["---"] * (3 + len(_FIGURES)))]
    for of in (READABLE, ALL) if document["failed"] else (READABLE,):
        for direction in DIRECTIONS:
            entry = document[direction][of]
            figures = ("none" if entry[name] is None else f"{entry[name]:.2f}" for name in _FIGURES)
            lines.append(_row(direction, of, entry["queries"], *figures))
    return lines


def write_retrieval(folder: Path, document: Mapping[str, Any]) -> None:
    """Write ``report.md`` and, last, ``result.json`` into a folder.

    Raises:
        ConfigError: a file cannot be written.
    """
    facts = {key: value for key, value in document.items() if not isinstance(value, (list, dict))}
    lines = [f"# retrieval: {markdown(str(document['dataset']))}", ""]
    lines += [f"- {key}: {markdown(str(value))}" for key, value in facts.items() if value is not None]
    lines += ["", *retrieval_lines(document), "", _EXPLANATION]
    if document["failures"]:
        lines += ["", f"## Unreadable videos ({len(document['failures'])})", ""]
        lines += [f"- {markdown(each['path'])}: {markdown(each['reason'])}" for each in document["failures"]]
    write_bytes(folder / REPORT_FILE, printable("\n".join(lines) + "\n").encode())
    # Written last: result.json marks a complete report.
    write_bytes(folder / RESULT_FILE, (to_json(document, indent=2) + "\n").encode())


def _entry(ranks: Ranks, direction: str) -> dict[str, Any]:
    summary = summarize_ranks(getattr(ranks, direction))
    figures = dict(zip(_FIGURES, (*summary.recall, summary.median, summary.mean), strict=True))
    return {"queries": summary.queries, **finite(figures)}


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
