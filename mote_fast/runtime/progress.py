"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

# Called with the number of items done since the last call, as ``tqdm.update`` is.
Progress = Callable[[int], object]
