"""``mote-fast push``: uploads a model folder to the Hugging Face hub, with a card."""

from __future__ import annotations

import argparse

from mote_fast.cli import outputs
from mote_fast.data.text_tables import read_text
from mote_fast.evaluation.combine import read_result
from mote_fast.model.checkpoint import load
from mote_fast.model.publish import push_folder
from mote_fast.runtime.reading import expanded


def run(arguments: argparse.Namespace) -> int:
    """Load the folder, to see that it is whole, and upload it; print the address of the commit. Returns 0."""
    results = [read_result(path) for path in arguments.results or ()]
    card = None if arguments.card is None else read_text(expanded(arguments.card))
    # The tuned tower is what the folder holds, whatever share its training asks for at evaluation.
    caution = load(arguments.folder, interpolate=1.0).caution
    address = push_folder(
        arguments.folder,
        arguments.repository,
        private=arguments.private,
        revision=arguments.revision,
        message=arguments.message,
        license=arguments.license,
        results=results,
        card=card,
        caution=caution,
    )
    outputs.write(address)
    return 0
