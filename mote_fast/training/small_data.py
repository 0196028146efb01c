"""What few videos mean for a run, said before it starts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mote_fast.training.build import Loaders
from mote_fast.training.config.train_config import TrainConfig

# Validation videos below which an accuracy is known to less than ten points either way.
FEW_VIDEOS = 100

# Standard deviations that hold 95% of a normal distribution.
_WIDTH = 1.96

_ADVICE = "docs/training.md has advice on few videos, and the configuration few_videos is made for them"


def interval(hits: int, videos: int) -> tuple[float, float]:
    """Return the 95% interval of an accuracy, percent: Wilson's, for ``hits`` of ``videos`` right."""
    share, spread = hits / videos, _WIDTH**2 / videos
    middle = (share + spread / 2) / (1 + spread)
    half = _WIDTH / (1 + spread) * math.sqrt(share * (1 - share) / videos + spread / (4 * videos))
    return 100 * (middle - half), 100 * (middle + half)


def cautions(config: TrainConfig, loaders: Loaders) -> Iterator[str]:
    """Yield a sentence for each sign that the data is too little for the settings."""
    videos, optim = loaders.validation_videos, config.optim
    if loaders.validation is not None and config.run.eval_every and videos < FEW_VIDEOS:
        hits = round(2 * videos / 3)
        low, high = interval(hits, videos)
        yield (
            f"{config.data.val_list}: {videos} videos tell little: if {hits} of them are right, the model's top-1 lies "
            f"between {low:.0f}% and {high:.0f}% (95% interval), so that the choice of best/ is much of a draw; "
            f"{_ADVICE}"
        )
    batches = loaders.training.batches_per_epoch
    if batches <= optim.accumulation and optim.epochs > 1:
        yield (
            f"{config.data.train_list}: {loaders.training_videos} videos make one step an epoch, {optim.epochs} in all "
            f"(data.batch_size {config.data.batch_size} x optim.accumulation {optim.accumulation}); lower these, or "
            f"raise optim.epochs; {_ADVICE}"
        )
