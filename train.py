"""Train MoTE: ``torchrun [--nproc-per-node N] train.py --config FILE [key=value ...]``, or with ``python`` alone.

The same as ``mote-fast train``, where the arguments are.
"""

from __future__ import annotations

import sys
from functools import partial

from mote_fast.cli import train

main = partial(train.main, "train.py")

if __name__ == "__main__":
    sys.exit(main())
