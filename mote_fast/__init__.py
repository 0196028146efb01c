"""MoTE on CLIP: classify videos against any labels, and train the model that does it.

>>> import mote_fast
>>> clf = mote_fast.load("mote-b16-k400")
>>> clf.classify("video.mp4", ["archery", "juggling balls", "playing the cello"])
"""

from pathlib import Path
from typing import TYPE_CHECKING

from mote_fast import errors
from mote_fast.runtime.lazy_names import lazy_names
from mote_fast.version import __version__

if not (Path(__file__).parent / "kernels").exists():
    # A checkout, whose kernels are beside the library: setup.py installs them inside.
    __path__.append(str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from mote_fast import batch, data
    from mote_fast.clip.prompts import Prompts
    from mote_fast.data.live.live_source import Interruption
    from mote_fast.exports.exported_classifier import ExportedClassifier, load_exported
    from mote_fast.exports.write import export
    from mote_fast.head.head_config import HeadConfig
    from mote_fast.head.video_head import VideoHead
    from mote_fast.model.checkpoint import create_model, load
    from mote_fast.model.classifier import VideoClassifier
    from mote_fast.model.results import Prediction, VideoEmbedding, VideoResult, WindowEmbeddings
    from mote_fast.model.zoo import PublishedModel, download, list_models
    from mote_fast.search.rows import Hit, IndexRow
    from mote_fast.search.video_index import Index
    from mote_fast.timeline.live_window import LiveWindow
    from mote_fast.timeline.time_segments import Segment
    from mote_fast.timeline.timeline import Timeline
    from mote_fast.training.losses import Loss, training_loss
    from mote_fast.training.method import Draws, TrainingMethod
    from mote_fast.training.optim import head_optimizer
else:
    # PyTorch and open_clip take seconds to import.
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "batch": (),
            "data": (),
            "clip.prompts": ("Prompts",),
            "data.live.live_source": ("Interruption",),
            "exports.exported_classifier": ("ExportedClassifier", "load_exported"),
            "exports.write": ("export",),
            "head.head_config": ("HeadConfig",),
            "head.video_head": ("VideoHead",),
            "model.checkpoint": ("create_model", "load"),
            "model.classifier": ("VideoClassifier",),
            "model.results": ("Prediction", "VideoEmbedding", "VideoResult", "WindowEmbeddings"),
            "model.zoo": ("PublishedModel", "download", "list_models"),
            "search.rows": ("Hit", "IndexRow"),
            "search.video_index": ("Index",),
            "timeline.live_window": ("LiveWindow",),
            "timeline.time_segments": ("Segment",),
            "timeline.timeline": ("Timeline",),
            "training.losses": ("Loss", "training_loss"),
            "training.method": ("Draws", "TrainingMethod"),
            "training.optim": ("head_optimizer",),
        },
    )

__all__ = [
    "Draws",
    "ExportedClassifier",
    "HeadConfig",
    "Hit",
    "Index",
    "IndexRow",
    "Interruption",
    "LiveWindow",
    "Loss",
    "Prediction",
    "Prompts",
    "PublishedModel",
    "Segment",
    "Timeline",
    "TrainingMethod",
    "VideoClassifier",
    "VideoEmbedding",
    "VideoHead",
    "VideoResult",
    "WindowEmbeddings",
    "__version__",
    "batch",
    "create_model",
    "data",
    "download",
    "errors",
    "export",
    "head_optimizer",
    "list_models",
    "load",
    "load_exported",
    "training_loss",
]
