"""DALI reads the frames of views, in a process of its own, on a CPU: close to the CPU reader's pixels."""

from __future__ import annotations

import pytest
import torch

from mote_fast.data.dali.server import DECODER
from mote_fast.data.gpu.gpu_reader import GpuReader
from mote_fast.data.loading.view_frames import CropReader, ViewRequest
from mote_fast.data.transforms import CLIP_STD, Preprocessing
from mote_fast.data.views import Views
from tests.data.conftest import NumberedVideos
from tests.data.dali.test_dali_loader import SAME_PIXELS


@pytest.mark.heavy
@pytest.mark.usefixtures("needs_dali")
def test_pixels_are_close_to_the_cpu_readers(numbered_videos: NumberedVideos) -> None:
    """As in training, for a file and for its content."""
    video = numbered_videos.write("dali_reader.webm", "libvpx-vp9", g=12, deadline="realtime", **{"cpu-used": 8})
    request = ViewRequest(4, Views(2, 3), Preprocessing(48), 8)
    reader, cpu = GpuReader(DECODER, torch.device("cpu"), 1, 300.0), CropReader(1, 300.0)
    try:
        expected = cpu.read(str(video), request, None).frames
        for source in (str(video), video.read_bytes()):
            found = reader.read(source, request, None).frames
            assert found.shape == expected.shape
            # In normalised units, as of the loader.
            assert (found.float() - expected.float()).abs().mean() <= SAME_PIXELS * 255 * min(CLIP_STD)
        assert reader.decoded == 2
    finally:
        reader.close()
        cpu.close()
