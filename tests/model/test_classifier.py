"""The classifier: from a file to ranked labels, independent of batching and sharing."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.nn import functional as F

import mote_fast
from mote_fast import Prediction, VideoClassifier, create_model
from mote_fast.clip.prompts import TEMPLATES
from mote_fast.data import Preprocessing, evaluation_pixels, probe, read_frames, sample_frames
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.transforms import ResizeMode
from mote_fast.errors import ConfigError, LabelError, MissingVideoError, NotFiniteError, UndecodableVideoError
from mote_fast.head.scores import view_probabilities, view_scores
from mote_fast.model import video_model
from tests.tolerances import assert_close

LABELS = ["archery", "juggling balls", "playing the cello"]


@torch.no_grad()
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
def test_frames_are_preprocessed_as_open_clip_does(resize_mode: ResizeMode) -> None:
    """A wide frame's feature equals open_clip's, from its own transform and its own forward."""
    torch.manual_seed(0)
    values: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
    values["resize_mode"] = resize_mode
    model = create_model("ViT-test", layers=1, frames=1, preprocessing=Preprocessing(64, **values))
    low = torch.rand(1, 3, 9, 16)
    frame = torch.nn.functional.interpolate(low, size=(180, 320), mode="bicubic").clamp(0, 1)
    frame = frame.mul(255).byte()[0].permute(1, 2, 0).contiguous()
    transform = image_transform_v2(PreprocessCfg(size=64, **values), is_train=False)
    wanted = model.clip.model.encode_image(transform(Image.fromarray(frame.numpy()))[None])[0]
    found = model.view_features(frame[None])[0, 0]
    assert torch.nn.functional.cosine_similarity(found, wanted, dim=0) > 0.9995


def test_squashed_frames_have_one_crop(moving_video: Path) -> None:
    """Three crops of a whole frame do not exist; the message says which views do."""
    model = create_model("ViT-test", layers=1, preprocessing=Preprocessing(64, resize_mode="squash"))
    assert len(model.view_features(moving_video, "4x1")) == 4
    with pytest.raises(ConfigError, match="such as 4x1"):
        model.view_features(moving_video, "4x3")


def _differences(views: torch.Tensor) -> float:
    """The largest difference of any view from the first."""
    return float((views - views[:1]).abs().max())


@torch.no_grad()
@pytest.mark.parametrize("shape", [(40, 30), (30, 30), (30, 40)], ids=["portrait", "square", "landscape"])
def test_three_crops_along_the_width_or_the_long_side(tiny: VideoClassifier, shape: tuple[int, int]) -> None:
    """As released, a portrait video is seen three times in its middle; the choice matters to no other shape."""
    video = torch.randint(256, (4, *shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    chosen = tiny.fold()
    chosen.crops_along = "long_side"
    released, long = tiny.view_features(video, "1x3"), chosen.fold().view_features(video, "1x3")
    same = {name: _differences(views) < 1e-4 for name, views in (("width", released), ("long_side", long))}
    portrait, square = shape[0] > shape[1], shape[0] == shape[1]
    assert same == {"width": portrait or square, "long_side": square}
    assert_close(long[2], released[2])
    if not portrait:
        assert_close(long, released)
    chosen.crops_along = "height"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="crops_along"):
        chosen.view_features(video, "1x3")


@torch.no_grad()
@pytest.mark.parametrize(("views", "clips", "crops"), [("1x1", 1, 1), ("3x1", 3, 1), ("4x3", 4, 3)])
def test_scores_equal_the_protocol_view_by_view(
    tiny: VideoClassifier, moving_video: Path, views: str, clips: int, crops: int
) -> None:
    """Sharing and batching frames changes nothing: each view decoded, encoded and scored alone gives the same."""
    classes = tiny.class_features(LABELS)
    indices = sample_frames(probe(moving_video).num_frames, tiny.frames, "test", clips=clips)
    per_view = []
    for clip in indices:
        pixels = evaluation_pixels(read_frames(moving_video, clip), tiny.clip.config.preprocessing, crops)
        for crop in range(crops):
            cosines = tiny.head(tiny.clip.encode_frames(pixels[:, crop])[None], classes)
            per_view.append(cosines)
    cosines = torch.cat(per_view)
    assert_close(
        tiny.scores(moving_video, classes, views),
        view_probabilities(cosines, len(cosines), tiny.clip.logit_scale)[0],
    )
    ranked = tiny.classify(moving_video, LABELS, views=views)
    released = view_scores(cosines, len(cosines))[0]
    assert [prediction.index for prediction in ranked] == released.argsort(descending=True).tolist()
    assert sum(prediction.score for prediction in ranked) == pytest.approx(1.0, abs=1e-5)


def test_frames_are_encoded_once(tiny: VideoClassifier, moving_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that several clips share passes the image tower once, in batches of bounded size."""
    monkeypatch.setattr(video_model, "FRAMES_PER_BATCH_ON_CPU", 5)
    seen: list[int] = []
    encode = tiny.clip.encode_frames
    monkeypatch.setattr(tiny.clip, "encode_frames", lambda pixels, **_: seen.append(len(pixels)) or encode(pixels))
    frames = read_frames(moving_video, range(10))
    tiny.classify(frames, LABELS, views="3x1")
    assert sum(seen) == sample_frames(10, 8, "test", clips=3).unique().numel()
    assert max(seen) <= 5


def test_lists_tensors_and_paths(tiny: VideoClassifier, moving_video: Path) -> None:
    """A list gives a list of lists; decoded frames give what their file gives."""
    alone = tiny.classify(moving_video, LABELS)
    frames = read_frames(moving_video, range(probe(moving_video).num_frames))
    both = tiny.classify([str(moving_video), frames], LABELS)
    assert both == [alone, alone]
    assert tiny.classify([], LABELS) == []


def test_ranking_ties_and_topk(tiny: VideoClassifier, moving_video: Path) -> None:
    """Duplicates keep their own index, in the given order; topk limits the list and may exceed the labels."""
    ranked = tiny.classify(moving_video, ["a", "b", "a"], topk=10)
    assert sorted(prediction.index for prediction in ranked) == [0, 1, 2]
    assert [prediction.index for prediction in ranked if prediction.label == "a"] == [0, 2]
    assert len(tiny.classify(moving_video, LABELS, topk=2)) == 2
    assert tiny.classify(moving_video, ["only one"]) == [Prediction("only one", 0, 1.0)]


def test_given_class_features_are_used(
    tiny: VideoClassifier, moving_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given class features are not computed again, and their number must match the labels."""
    classes = tiny.class_features(LABELS)
    expected = tiny.classify(moving_video, LABELS)
    monkeypatch.setattr(tiny, "class_features", None)
    assert tiny.classify(moving_video, LABELS, class_features=classes) == expected
    for wrong in (classes[:2], classes[:, 1:], classes.numpy(), "features"):
        with pytest.raises(ConfigError, match=r"class_features must be a tensor \[3, 64\] for 3 labels"):
            tiny.classify(moving_video, LABELS, class_features=wrong)  # pyright: ignore


def test_embedding(tiny: VideoClassifier, moving_video: Path) -> None:
    """A unit vector, the mean of temporal features without modulation, stable over views of a still video."""
    found = tiny.embed(moving_video)
    assert found.shape == (tiny.clip.embed_dim,)
    assert found.dtype == torch.float32
    with torch.no_grad():
        features = tiny.head.features(tiny.view_features(moving_video))
    assert_close(found, F.normalize(features.mean((0, 1)), dim=0), "equivalent")
    still = torch.full((12, 64, 64, 3), 77, dtype=torch.uint8)
    assert_close(tiny.embed(still, views="3x1"), tiny.embed(still), "equivalent")


def test_text_embedding(tiny: VideoClassifier) -> None:
    """Texts are encoded as they are; with templates, as class names are; rows keep the order and repeat."""
    texts = ["a dog runs over grass", "archery", "a dog runs over grass", "two men", "tea"]
    found = tiny.embed_text(texts)
    tokens = tiny.clip.tokenizer(texts)
    assert_close(found, F.normalize(tiny.clip.model.encode_text(tokens).detach(), dim=-1))
    assert torch.equal(found[0], found[2])
    assert torch.equal(tiny.embed_text(LABELS, TEMPLATES), tiny.class_features(LABELS))
    assert not torch.equal(tiny.embed_text(LABELS), tiny.class_features(LABELS))


@pytest.mark.parametrize(
    ("texts", "templates", "message"),
    [
        ("a dog", None, "not one string; use [text]"),
        ([], None, "at least one"),
        (["a", " "], None, "blank"),
        (["a"], "a video of {}.", "template"),
        (["a"], [], "template"),
        (["a"], ["a video"], "a video"),
        (["a"], ["{} and {}"], "{} and {}"),
        (["a"], ["{} in {place}"], "{place}"),
        (["a"], [3], "3"),
    ],
)
def test_texts_that_cannot_be_embedded(tiny: VideoClassifier, texts: Any, templates: Any, message: str) -> None:
    """Bad texts and templates are named before anything is encoded."""
    with pytest.raises(LabelError, match=re.escape(message)):
        tiny.embed_text(texts, templates)


def test_folding_shares_the_towers_and_changes_no_score(tiny: VideoClassifier, moving_video: Path) -> None:
    """fold() costs no second copy of CLIP and gives the same scores."""
    folded = tiny.fold()
    assert folded.clip is tiny.clip
    assert folded.feature_cache is tiny.feature_cache
    classes = tiny.class_features(LABELS)
    assert_close(folded.scores(moving_video, classes), tiny.scores(moving_video, classes), "equivalent")


def test_reduced_precision_ranks_alike(moving_video: Path) -> None:
    """A bfloat16 model runs end to end, near its float32 twin."""
    torch.manual_seed(0)
    full = mote_fast.create_model("ViT-test")
    torch.manual_seed(0)
    half = mote_fast.create_model("ViT-test", dtype=torch.bfloat16)
    assert_close(half.embed(moving_video), full.embed(moving_video), "bfloat16")
    assert len(half.classify(moving_video, LABELS)) == 3


def test_no_gradient_is_recorded(tiny: VideoClassifier, moving_video: Path) -> None:
    """Inference holds no graph, and its results may still be used in training."""
    assert not tiny.embed(moving_video).requires_grad
    classes = tiny.class_features(LABELS)
    weight = torch.ones(3, requires_grad=True)
    (weight @ classes).sum().backward()
    assert weight.grad is not None


def test_bad_requests_are_named(tiny: VideoClassifier, moving_video: Path, tmp_path: Path) -> None:
    """Labels, views, topk, frames and files are each refused by name."""
    with pytest.raises(LabelError, match="no labels"):
        tiny.classify(moving_video, [])
    with pytest.raises(LabelError, match="list of class names"):
        tiny.classify(moving_video, "archery")
    with pytest.raises(ConfigError, match="views"):
        tiny.classify(moving_video, LABELS, views="3x2")
    with pytest.raises(ConfigError, match="topk"):
        tiny.classify(moving_video, LABELS, topk=0)
    with pytest.raises(ConfigError, match="views"):
        tiny.classify(moving_video, LABELS, views=3)  # pyright: ignore
    with pytest.raises(MissingVideoError, match=r"none\.mp4"):
        tiny.classify(tmp_path / "none.mp4", LABELS)


def test_real_clip(clips_dir: Path) -> None:
    """A real Kinetics clip through the shipped weights: the scores that they gave when this was written."""
    labels = ["a red circle sliding to the left", "a blue star growing", "a white ring fading"]
    ranked = mote_fast.load("tiny").classify(clips_dir / "k400_arm_wrestling.mp4", labels, views="4x3")
    assert [each.index for each in ranked] == [0, 2, 1]
    assert [each.score for each in ranked] == pytest.approx([0.6365, 0.3608, 0.0027], abs=1e-3)


def test_a_strip_is_not_scaled_to_fill_the_memory(tiny: VideoClassifier, tmp_path: Path) -> None:
    """Two rows of 60,000 pixels are a small picture; scaled to the tower's height, eight of them are not."""
    strip = torch.zeros(8, 2, 60_000, 3, dtype=torch.uint8)
    path = mote_fast.data.write_video(tmp_path / "strip.avi", strip, codec="mjpeg", pix_fmt="yuvj420p")
    with pytest.raises(UndecodableVideoError, match="after scaling"):
        tiny.embed(path)


def test_every_form_of_a_video_gives_the_same(tiny: VideoClassifier, moving_video: Path) -> None:
    """Tensor and NumPy array, read-only or not contiguous; path and bytes; alone or several in a list."""
    frames = read_frames(moving_video, range(12))
    array = frames.numpy()
    frozen = array.copy()
    frozen.flags.writeable = False
    reversed_colors = np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    expected = tiny.classify(frames, LABELS)
    forms = [array, frozen, reversed_colors, np.asfortranarray(array), frames]
    assert tiny.classify(forms, LABELS) == [expected] * len(forms)
    for form in forms:
        assert tiny.classify(form, LABELS) == expected
        assert torch.equal(tiny.embed(form), tiny.embed(frames))
        assert torch.equal(tiny.view_features(form), tiny.view_features(frames))
    whole = tiny.classify(moving_video, LABELS)
    files = (str(moving_video), Path(moving_video), Path(moving_video).read_bytes())
    assert tiny.classify(files, LABELS) == [whole] * 3
    assert [tiny.classify(file, LABELS) for file in files] == [whole] * 3


@pytest.mark.parametrize("part", ["clip.model.visual.proj", "clip.model.logit_scale", "head.blocks.0.ln_1.weight"])
def test_scores_that_are_no_numbers_are_an_error(tiny: VideoClassifier, moving_video: Path, part: str) -> None:
    """NaN ranks nothing; it is neither a score nor an embedding, and no cached class feature."""
    classes = tiny.class_features(LABELS)
    with torch.no_grad():
        tiny.get_parameter(part).fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="scores are not finite"):
        tiny.classify(moving_video, LABELS, class_features=classes)
    if "logit_scale" not in part:
        with pytest.raises(NotFiniteError, match="video features are not finite"):
            tiny.embed(moving_video)


def test_class_features_that_are_no_numbers_are_not_cached(tiny: VideoClassifier) -> None:
    """A text tower with NaN raises, and leaves nothing that a later call would take."""
    with torch.no_grad():
        tiny.clip.model.ln_final.weight.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="class features are not finite"):
        tiny.class_features(LABELS)
    assert tiny.feature_cache is not None
    assert tiny.feature_cache.size() == 0


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    """They are taken as square, as by the released recipe; "apply" gives the features of the video in its shape."""
    wide = (torch.rand(4, 3, 8, 16) * 255).repeat_interleave(12, 2).repeat_interleave(12, 3)
    squeezed = F.avg_pool2d(wide, (1, 2)).byte().permute(0, 2, 3, 1).numpy()
    path = tmp_path / "squeezed.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *squeezed.shape[1:3], "yuv444p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for frame in squeezed:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    info = probe(path)
    assert (info.pixel_aspect, info.displayed_size("apply"), info.displayed_size("ignore")) == (2, (96, 192), (96, 96))
    model = mote_fast.load("tiny")
    stored = read_frames(path, range(4))
    shown = F.interpolate(stored.permute(0, 3, 1, 2), scale_factor=(1, 2)).permute(0, 2, 3, 1)
    assert torch.equal(model.view_features(path, "1x3"), model.view_features(stored, "1x3"))
    model.pixel_aspect = "apply"
    expected, applied = model.view_features(shown, "1x3"), model.view_features(path, "1x3")
    assert F.cosine_similarity(applied, expected, dim=-1).min() > 0.98


def test_an_unreadable_frame_costs_that_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its neighbor stands in, which is counted and logged; a video that is mostly unreadable is refused."""
    path = write_video(
        tmp_path / "whole.avi",
        torch.randint(256, (16, 32, 32, 3), dtype=torch.uint8),
        codec="mjpeg",
        pix_fmt="yuvj420p",
    )
    data = bytearray(Path(path).read_bytes())
    pictures = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
    assert len(pictures) == 16
    for count, name in ((2, "two.avi"), (12, "many.avi")):
        for start, end in list(itertools.pairwise(pictures))[3 : 3 + count]:
            data[start : end - 8] = bytes(end - 8 - start)
        (tmp_path / name).write_bytes(data)
    model = mote_fast.load("tiny")
    whole = model.classify(path, ["a", "b"], views="1x1")
    with caplog.at_level("WARNING", "mote_fast"):
        damaged = model.classify(tmp_path / "two.avi", ["a", "b"], views="1x1")
    assert len(damaged) == len(whole) == 2
    assert model.replaced_frames == 1
    assert "two.avi: 1 of 8 frames" in caplog.text
    with pytest.raises(UndecodableVideoError, match=r"many\.avi"):
        model.classify(tmp_path / "many.avi", ["a", "b"], views="1x1")
