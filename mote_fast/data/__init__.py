"""From video files to pixels: lists, sampling, decoding, transforms, views, and the loaders that feed a model."""

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
