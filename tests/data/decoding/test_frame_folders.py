"""Folders of extracted frames: the right images, in order, and errors that name them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding import frame_folders, video_info
from mote_fast.data.decoding.frame_folders import check_template, probe_frame_folder, read_frame_folder
from mote_fast.data.items import VideoItem, read_list
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing, render
from mote_fast.errors import ConfigError, FrameIndexError, MissingVideoError, UndecodableVideoError
from tests.data.conftest import NumberedVideos

FRAMES = 12


def extract(folder: Path, template: str = "img_{:05d}.jpg", count: int = FRAMES) -> Path:
    """Write numbered frames as images; frame 0 is image 1."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(NumberedVideos.draw(count)):
        Image.fromarray(frame).save(folder / template.format(number + 1))
    return folder


def test_reads_the_frames_asked_for(tmp_path: Path) -> None:
    """Frame i is the image numbered i + 1, in the requested order, repeats included."""
    frames = read_frame_folder(extract(tmp_path / "a"), torch.tensor([3, 0, 11, 3]), FRAMES)
    assert frames.dtype == torch.uint8
    assert NumberedVideos.read(frames) == [3, 0, 11, 3]


def test_pixels_are_those_of_the_images(tmp_path: Path) -> None:
    """PNG is lossless, so pixels must be exact; grey images become RGB."""
    drawn = NumberedVideos.draw(2)
    (tmp_path / "a").mkdir()
    Image.fromarray(drawn[0]).save(tmp_path / "a" / "1.png")
    Image.fromarray(drawn[1][..., 0]).save(tmp_path / "a" / "2.png")
    frames = read_frame_folder(tmp_path / "a", [0, 1], 2, "{}.png").numpy()
    assert np.array_equal(frames[0], drawn[0])
    assert np.array_equal(frames[1], np.repeat(drawn[1][..., :1], 3, axis=2))


def test_probe_describes_the_folder(tmp_path: Path) -> None:
    """Plans need the count and the size, as for a file."""
    info = probe_frame_folder(extract(tmp_path / "a"), FRAMES)
    assert (info.num_frames, info.width, info.height, info.codec) == (FRAMES, 64, 48, "jpeg")
    assert info.key_frames == tuple(range(FRAMES))


def test_a_released_list_of_folders_is_a_data_set(tmp_path: Path) -> None:
    """Folders get the same plan and transforms as video files, and one list may have both."""
    extract(tmp_path / "jump" / "a", "frame{:03d}.png")
    (tmp_path / "list.txt").write_text(f"jump/a {FRAMES} 4\n")
    items = read_list(tmp_path / "list.txt", tmp_path)
    assert items == [VideoItem(str(tmp_path / "jump" / "a"), 4, FRAMES)]
    recipe = ClipRecipe(frames=4, preprocessing=Preprocessing(32), augmentation="kinetics")
    dataset = VideoDataset(items, recipe, seed=1, frame_template="frame{:03d}.png")
    _, plan = dataset.plan(0, epoch=2)
    frames = torch.from_numpy(NumberedVideos.draw(FRAMES))[plan.views.frame_indices]
    clip = dataset.load(0, epoch=2)
    assert torch.equal(clip.pixels, plan.views.gather(render(frames, plan.geometry, recipe.preprocessing)))
    assert clip.label == 4


def test_faults_are_typed_and_named(tmp_path: Path) -> None:
    """The loader's report names the file at fault."""
    folder = extract(tmp_path / "a")
    with pytest.raises(FrameIndexError, match="frame 12 is outside the folder of 12"):
        read_frame_folder(folder, [12], FRAMES)
    with pytest.raises(MissingVideoError, match=r"img_00014\.jpg"):
        read_frame_folder(folder, [13], 20)
    with pytest.raises(MissingVideoError, match=r"nowhere.*frame_template"):
        probe_frame_folder(tmp_path / "nowhere", 3)
    image = folder / "img_00003.jpg"
    image.write_bytes(image.read_bytes()[:-20])
    with pytest.raises(UndecodableVideoError, match=r"img_00003\.jpg: the image is damaged"):
        read_frame_folder(folder, [1, 2], FRAMES)
    image.write_bytes(b"nothing")
    with pytest.raises(UndecodableVideoError, match=r"img_00003\.jpg: not an image"):
        read_frame_folder(folder, [2], FRAMES)
    Image.new("RGB", (10, 10)).save(image)
    with pytest.raises(UndecodableVideoError, match=r"differ in size \(64x48, 10x10\)"):
        read_frame_folder(folder, [1, 2], FRAMES)


def test_a_huge_image_is_refused_unread(tmp_path: Path) -> None:
    """A header can declare any size, and the declaration alone must not exhaust memory."""
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "img_00001.png"
    Image.new("1", (9000, 9000)).save(path)
    with pytest.raises(UndecodableVideoError, match="9000x9000, over the limit"):
        probe_frame_folder(tmp_path / "a", 1, "img_{:05d}.png")


@pytest.mark.parametrize(
    "template", ["img.jpg", "img_{:05d", "{name}.jpg", "{:05q}.jpg", "{0.x}.jpg", "{:99999999999}.jpg"]
)
def test_a_template_without_a_number_is_refused(template: str) -> None:
    """Otherwise training would use one image for every frame without an error."""
    with pytest.raises(ConfigError, match="frame_template"):
        check_template(template)


def test_images_that_together_are_too_large_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit for one read is that of video files."""
    folder = extract(tmp_path / "a")
    monkeypatch.setattr(video_info, "MAX_READ_BYTES", 2 * 64 * 48 * 3)
    assert len(read_frame_folder(folder, [0, 1, 1, 0], FRAMES)) == 4
    with pytest.raises(UndecodableVideoError, match=r"3 frames of 64x48 take .* over the limit"):
        read_frame_folder(folder, [0, 1, 2], FRAMES)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    """Pillow's other formats are refused: EPS would start Ghostscript."""
    image = tmp_path / "img_00001.jpg"
    for name in ("PNG", "BMP", "WEBP"):
        Image.new("RGB", (8, 8)).save(image, name)
        assert probe_frame_folder(tmp_path, 1).codec == name.lower()
    for name in ("EPS", "GIF", "TIFF"):
        Image.new("RGB", (8, 8)).save(image, name)
        with pytest.raises(UndecodableVideoError, match="use BMP, JPEG, PNG, WEBP"):
            probe_frame_folder(tmp_path, 1)


def test_only_regular_files_of_bounded_size_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe would be waited for without end."""
    folder = extract(tmp_path / "a", count=2)
    monkeypatch.setattr(frame_folders, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(UndecodableVideoError, match="over the limit"):
        probe_frame_folder(folder, 1)
    (folder / "img_00001.jpg").unlink()
    os.mkfifo(folder / "img_00001.jpg")
    with pytest.raises(UndecodableVideoError, match="not a regular file"):
        probe_frame_folder(folder, 1)


def test_more_images_than_a_video_may_have_frames(tmp_path: Path) -> None:
    """The count comes from a list; the index of that many frames alone would fill the memory."""
    with pytest.raises(UndecodableVideoError, match="over the limit"):
        probe_frame_folder(extract(tmp_path / "a", count=1), 10**30)


def test_large_images_are_converted_in_parts(tmp_path: Path) -> None:
    """The parts fit together, in every mode."""
    pixels = np.random.default_rng(0).integers(0, 255, (600, 3, 3), np.uint8)
    whole = Image.fromarray(pixels)
    for number, mode in enumerate(("RGB", "L", "P", "RGBA", "LA", "1")):
        image = whole.convert(mode)
        image.save(tmp_path / f"{number + 1}.png")
        (frame,) = read_frame_folder(tmp_path, [number], 6, "{}.png").numpy()
        assert np.array_equal(frame, np.asarray(image.convert("RGB")))
    with pytest.raises(ConfigError, match="empty"):
        read_frame_folder(tmp_path, [], 6)
