"""``python -m mote_fast.cli``, the same as ``mote-fast``."""

import sys

from mote_fast.cli import main

sys.exit(main())
