"""Real clips, if the machine has them; the README beside them describes each."""

from pathlib import Path

import pytest
import torch

from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.errors import UndecodableVideoError

# Name: frames, width and height after rotation, codec, degrees clockwise.
CLIPS = {
    "k400_arm_wrestling.mp4": (280, 340, 256, "h264", 0),
    "k400_flipping_pancake.mkv": (310, 426, 240, "h264", 0),
    "action_test.avi": (164, 320, 240, "mpeg4", 0),
    "av1_video.mkv": (125, 640, 360, "av1", 0),
    "h265_video.mp4": (10, 128, 128, "hevc", 0),
    "h264_10bits.mp4": (30, 200, 200, "h264", 0),
    "rotated_90.mov": (3, 320, 568, "h264", 90),
    "unordered.mov": (4, 50, 50, "h264", 0),
}


@pytest.mark.parametrize("name", CLIPS)
def test_probe(name: str, clips_dir: Path) -> None:
    """Counts and sizes equal those of other tools."""
    info = probe(clips_dir / name)
    assert (info.num_frames, info.width, info.height, info.codec, info.rotation) == CLIPS[name]


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.torchcodec
def test_backends_agree(name: str, clips_dir: Path) -> None:
    """Both give the same pixels, at indices that need seeking, at the ends, and at adjacent ones."""
    count, width, height = CLIPS[name][:3]
    indices = sorted({0, 1, count // 3, count // 2, count - 2, count - 1})
    both = [read_frames(clips_dir / name, indices, backend).int() for backend in ("auto", "pyav")]
    assert both[0].shape == (len(indices), height, width, 3)
    assert (both[0] - both[1]).abs().float().mean() < 1


@pytest.mark.parametrize("name", CLIPS)
def test_seeking_equals_decoding_in_a_row(name: str, clips_dir: Path) -> None:
    """It also holds if the timestamps are wrong (action_test) or the GOP is longer than the clip."""
    count = CLIPS[name][0]
    info = probe(clips_dir / name)
    some = sorted({count // 2, count - 1})
    rows = read_frames(clips_dir / name, range(count), "pyav", info=info)[some]
    singly = torch.cat([read_frames(clips_dir / name, [index], "auto", info=info) for index in some])
    assert (rows.int() - singly.int()).abs().float().mean() < 1


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_corrupted(backend: str, clips_dir: Path) -> None:
    """Packet 30 is damaged: frames before it are intact, and those after it must not be concealed."""
    path = clips_dir / "corrupted.mp4"
    assert read_frames(path, [0, 20], backend).shape == (2, 720, 1280, 3)
    with pytest.raises(UndecodableVideoError) as caught:
        read_frames(path, range(0, 49, 7), backend)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
