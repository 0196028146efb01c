"""From video files to pixels: lists, sampling, decoding, transforms, views, and the loaders that feed a model."""

from typing import TYPE_CHECKING

from mote_fast.runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from mote_fast.data.dataset import VideoDataset
    from mote_fast.data.decoding.decode import available_backends, probe, read_frames
    from mote_fast.data.decoding.video_writer import write_video
    from mote_fast.data.items import VideoItem, read_csv, read_labels, read_list, scan_folder
    from mote_fast.data.loaders import make_loader
    from mote_fast.data.loading.batch import Batch
    from mote_fast.data.loading.faults import Failure, FaultLog
    from mote_fast.data.loading.order import Replica
    from mote_fast.data.loading.video_loader import LoaderOptions, VideoLoader
    from mote_fast.data.plan import ClipRecipe
    from mote_fast.data.sampling import sample_frames
    from mote_fast.data.transforms import Preprocessing, evaluation_pixels
    from mote_fast.data.views import Views
else:
    # PyTorch takes seconds to import, and the command line reads names of choices here.
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "dataset": ("VideoDataset",),
            "decoding.decode": (
                "available_backends",
                "probe",
                "read_frames",
            ),
            "decoding.video_writer": ("write_video",),
            "items": (
                "VideoItem",
                "read_csv",
                "read_labels",
                "read_list",
                "scan_folder",
            ),
            "loaders": ("make_loader",),
            "loading.batch": ("Batch",),
            "loading.faults": (
                "Failure",
                "FaultLog",
            ),
            "loading.order": ("Replica",),
            "loading.video_loader": (
                "LoaderOptions",
                "VideoLoader",
            ),
            "plan": ("ClipRecipe",),
            "sampling": ("sample_frames",),
            "transforms": (
                "Preprocessing",
                "evaluation_pixels",
            ),
            "views": ("Views",),
        },
    )

__all__ = [
    "Batch",
    "ClipRecipe",
    "Failure",
    "FaultLog",
    "LoaderOptions",
    "Preprocessing",
    "Replica",
    "VideoDataset",
    "VideoItem",
    "VideoLoader",
    "Views",
    "available_backends",
    "evaluation_pixels",
    "make_loader",
    "probe",
    "read_csv",
    "read_frames",
    "read_labels",
    "read_list",
    "sample_frames",
    "scan_folder",
    "write_video",
]
