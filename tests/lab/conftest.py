"""Lets tests import the laboratory's scripts as the scripts import one another."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "lab"))
