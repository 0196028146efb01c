"""The command line: ``mote-fast COMMAND``, each command in its own file."""

from __future__ import annotations

import sys
from collections.abc import Sequence

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 if all of it succeeded, 2 for bad usage or if nothing could be
    done, 3 if some videos failed, 130 after Ctrl-C (docs/cli.md).
    """
    try:
        # Ctrl-C during the imports, of which a command's take seconds, ends the program as later.
        from mote_fast.cli.program import run_command

        return run_command(argv)
    except KeyboardInterrupt:
        print("mote-fast: interrupted", file=sys.stderr)
        return INTERRUPTED
