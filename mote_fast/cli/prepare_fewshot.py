"""``mote-fast prepare fewshot``: writes training lists of a few videos per class, repeated to the full set's size."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path

from mote_fast.cli import outputs
from mote_fast.data.items import read_list
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.fewshot import few_shot, repeat_to
from mote_fast.prepare.lists import LOCK_FILE, format_list
from mote_fast.prepare.prepare_settings import PAPER_SHOTS
from mote_fast.runtime.files import make_folder, write_texts
from mote_fast.runtime.lock import FileLock

log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> int:
    """Write one list for each number of shots. Returns 0."""
    asked = arguments.shots
    if asked is not None and len(set(asked)) < len(asked):
        raise ConfigError(f"--shots names a number twice: {' '.join(map(str, asked))}")
    items = read_list(arguments.list)
    contents: dict[str, str] = {}
    written: list[dict[str, int | str]] = []
    for shots in asked or PAPER_SHOTS:
        try:
            drawn = few_shot(items, shots, arguments.seed)
        except ListError as error:
            # Nobody asked for this number, and there are lists of fewer.
            if asked is not None or not written:
                raise
            log.warning("no list of %d shots: %s", shots, str(error))
            break
        length = {"full": len(items), "once": len(drawn)}.get(arguments.length) or int(arguments.length)
        name = f"fewshot_K{shots}_seed{arguments.seed}.txt"
        contents[name] = format_list(repeat_to(drawn, length))
        classes = len(Counter(item.label for item in drawn))
        written.append({"list": name, "shots": shots, "classes": classes, "videos": len(drawn), "entries": length})
    output = Path(arguments.output)
    make_folder(output, names=contents)
    with FileLock(output / LOCK_FILE, f"--output {output}"):
        write_texts(output, contents, arguments.force)
    lines = [
        f"{output / str(each['list'])}: {each['videos']} videos of {each['classes']} classes, "
        f"repeated to {each['entries']} entries"
        for each in written
    ]
    outputs.show(arguments, {"source": arguments.list, "seed": arguments.seed, "lists": written}, lines)
    return 0
