"""The DALI graph: the same definition on both devices; the CPU variant is run."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from mote_fast.data.dali import pipeline as dali_pipeline
from mote_fast.data.dali.color import identity
from mote_fast.data.dali.pipeline import ClipInput, build_pipeline, columns
from mote_fast.data.gpu.decode_server import Device
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing
from mote_fast.data.views import Views
from tests.data.conftest import NumberedVideos


def _file_input(data: bytes, indices: list[int], size: tuple[int, int], order: list[int], crops: int = 1) -> ClipInput:
    """A file whose frames keep their size and colours."""
    return ClipInput(
        encoded=np.frombuffer(data, np.uint8),
        indices=np.array(indices, np.int32),
        scaled=np.array(size, np.float32),
        boxes=np.array([[0, 0, *size]] * crops, np.int32),
        colors=identity(),
        mirrored=np.array(0, np.int32),
        order=np.array(order, np.int32),
    )


@pytest.mark.usefixtures("needs_dali")
@pytest.mark.parametrize("prefetch", [1, 2])
def test_frames_are_those_asked_for(prefetch: int, numbered_videos: NumberedVideos) -> None:
    """Indices, repeats by ``order``, a short last batch, and outputs that outlive the next run."""
    path = numbered_videos.write("vp9.webm", "libvpx-vp9", g=12, deadline="realtime", **{"cpu-used": 8})
    data, batches = path.read_bytes(), [[[0, 5, 39], [7, 8, 9]], [[1, 2, 3]]]
    source = iter([columns([_file_input(data, indices, (48, 64), [2, 0, 0, 1]) for indices in b]) for b in batches])
    recipe = ClipRecipe(frames=4, preprocessing=Preprocessing(48))
    pipeline = build_pipeline(source, recipe, batch_size=2, device="cpu", prefetch=prefetch)
    outputs = [[torch.from_dlpack(out.as_tensor()) for out in pipeline.run()] for _ in batches]
    with pytest.raises(StopIteration):
        pipeline.run()
    for batch, (pixels, shapes) in zip(batches, outputs, strict=True):
        assert shapes.tolist() == [[3, 48, 64, 3]] * len(batch)
        assert pixels.shape == (len(batch), 4, 3, 48, 64)
        assert pixels.dtype == torch.uint8
        for indices, frames in zip(batch, pixels, strict=True):
            seen = numbered_videos.read(frames.permute(0, 2, 3, 1))
            assert seen == [indices[2], indices[0], indices[0], indices[1]]


@pytest.mark.usefixtures("needs_dali")
@pytest.mark.parametrize(
    "recipe", [ClipRecipe(views=Views(4, 3)), ClipRecipe(augmentation="kinetics")], ids=["evaluation", "training"]
)
def test_gpu_graph(recipe: ClipRecipe) -> None:
    """DALI accepts the graph for a GPU, and all steps after the decoder stay there; running it takes a GPU."""
    graphs = {}
    for device in ("cpu", "gpu"):
        pipeline = build_pipeline(iter([]), recipe, batch_size=2, device=device)
        # Checks every operator's arguments against its schema; needs no driver.
        assert (b"mixed" in pipeline.serialize()) == (device == "gpu")
        graphs[device] = {op.name.split("_")[2]: {out.device for out in op.outputs} for op in pipeline._ops or ()}
    assert graphs["gpu"].keys() == graphs["cpu"].keys()
    pixels = {"Video", "Resize", "Slice", "Cat", "CoordTransform", "SequenceRearrange", "CropMirrorNormalize"}
    assert {name for name, devices in graphs["gpu"].items() if devices == {"gpu"}} == pixels
    assert all(devices == {"cpu"} for devices in graphs["cpu"].values())


@pytest.mark.usefixtures("needs_dali")
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_threads_are_not_pinned(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of all GPUs of a machine would pin their decoding threads to the same few cores."""
    from nvidia.dali import fn

    asked: list[dict[str, Any]] = []
    video = fn.decoders.video  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(fn.decoders, "video", lambda *args, **options: asked.append(options) or video(*args, **options))
    build_pipeline(iter([]), ClipRecipe(), batch_size=1, device=device)
    assert [(each["affine"], each["device"]) for each in asked] == [(False, "mixed" if device == "gpu" else "cpu")]


def test_missing_dali_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor command prints the reason."""
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    reason = dali_pipeline.why_unavailable.__wrapped__()
    assert reason is not None
    assert "pip install nvidia-dali" in reason


@pytest.mark.usefixtures("needs_dali")
def test_gpu_needs_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI itself would fail late, when the pipeline is built."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "CUDA" in (dali_pipeline.why_unavailable.__wrapped__("gpu") or "")
