"""From a video file to pixels: sampling, decoding, transforms, views."""

from mote_fast.data.decode import probe, read_frames
from mote_fast.data.sampling import sample_frames
from mote_fast.data.transforms import evaluation_pixels
from mote_fast.data.video_writer import write_video

__all__ = ["evaluation_pixels", "probe", "read_frames", "sample_frames", "write_video"]
