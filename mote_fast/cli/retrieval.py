"""``mote-fast retrieval``: how well captions find their videos, and videos their captions.

Under torchrun the processes divide the videos and the captions; the result is the same for any number of processes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from mote_fast.cli import inputs, outputs
from mote_fast.cli.eval import processes
from mote_fast.data.loading.order import Replica
from mote_fast.data.views import Views
from mote_fast.evaluation.captions import read_captions
from mote_fast.evaluation.predict import embed_videos
from mote_fast.evaluation.protocol_names import RETRIEVAL_VIEWS
from mote_fast.evaluation.retrieval_report import RETRIEVAL_FILES, retrieval_document, retrieval_lines, write_retrieval
from mote_fast.model.classifier import VideoClassifier
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.runtime.files import make_folder


def run(arguments: argparse.Namespace) -> int:
    """Rank; the first process writes and prints. Returns 0, or 3 if any video failed."""
    with processes(arguments) as world:
        arguments.device = str(world.device)
        listed = read_captions(arguments.list, arguments.root, arguments.split)
        views = Views.parse(arguments.views or RETRIEVAL_VIEWS)
        if arguments.output is not None and world.leads:
            make_folder(Path(arguments.output), names=RETRIEVAL_FILES)
        started = time.perf_counter()
        model = inputs.model_of(arguments)
        replica = Replica(world.rank, world.size)
        with inputs.open_loader(arguments, model, listed.items, views, replica=replica) as (loader, progress):
            videos = embed_videos(model, loader, progress=progress)
        templates = None if arguments.templates is None else model.prompts.templates
        texts = _embed_captions(model, listed.captions, templates, world)
        if world.leads:
            facts = {
                "dataset": arguments.dataset or listed.name,
                "split": arguments.split,
                **inputs.facts_of(arguments, model, views, world),
                "templates": arguments.templates,
                "seconds": round(time.perf_counter() - started, 3),
            }
            document = retrieval_document(listed, videos, texts, facts)
            if arguments.output is not None:
                write_retrieval(Path(arguments.output), document)
            outputs.show(arguments, document, retrieval_lines(document))
            outputs.report_unread(videos.failures)
        # torchrun stops the others when one ends with another status than 0, so all wait until the first has written.
        world.wait()
    return outputs.SOME_FAILED if videos.failures else 0


def _embed_captions(
    model: VideoClassifier, captions: Sequence[str], templates: Sequence[str] | None, world: ProcessGroup
) -> Tensor:
    """Embed the captions, float32 [C, d] on the CPU; each process embeds its share of the distinct ones."""
    distinct = list(dict.fromkeys(captions))
    mine = distinct[world.rank :: world.size]
    part = torch.empty(0, model.clip.embed_dim)
    if mine:
        hidden = None if world.leads else True
        with tqdm(total=len(mine), unit="captions", disable=hidden, delay=2) as bar:
            part = model.embed_text(mine, templates, progress=bar.update).cpu()
    features = torch.empty(len(distinct), model.clip.embed_dim)
    for rank, share in enumerate(world.gather(part)):
        features[rank :: world.size] = share
    place = {caption: at for at, caption in enumerate(distinct)}
    return features[[place[caption] for caption in captions]]
