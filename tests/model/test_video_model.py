"""A classifier is a module like others: called, hooked, compiled, moved, copied, pickled, and used by loaders."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mote_fast import VideoClassifier, create_model, load
from mote_fast.data import evaluation_pixels
from mote_fast.data.views import Views, plan_views
from mote_fast.errors import BackendError, ConfigError, LabelError
from tests.tolerances import assert_close

LABELS = ["archery", "juggling balls", "playing the cello"]
VIDEO = torch.randint(256, (9, 40, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def pixels_of(model: VideoClassifier) -> Tensor:
    """One view of the video, twice."""
    frames = VIDEO[plan_views(len(VIDEO), model.frames, Views(1, 1)).frame_indices]
    return torch.stack([evaluation_pixels(frames, model.clip.config.preprocessing)[:, 0]] * 2)


def test_a_call_gives_logits(tiny: VideoClassifier) -> None:
    """Their softmax is what classify says of one view; gradients flow, hooks run."""
    classes, seen = tiny.class_features(LABELS), []
    tiny.register_forward_hook(lambda *_: seen.append(True))
    logits = tiny(pixels_of(tiny), classes)
    assert_close(logits.softmax(-1)[1], tiny.scores(VIDEO, classes, "1x1"))
    logits.sum().backward()
    assert tiny.clip.model.visual.proj.grad is not None
    assert seen
    tiny.classes = LABELS
    assert torch.equal(tiny(pixels_of(tiny)), logits)


def test_a_call_that_does_not_fit(tiny: VideoClassifier) -> None:
    """The error leads to classify."""
    with pytest.raises(LabelError, match="give class_features"):
        tiny(pixels_of(tiny))
    for wrong in (torch.zeros(2, 3, 32, 32), torch.zeros(2, 8, 3, 16, 16), VIDEO):
        with pytest.raises(ConfigError, match="use classify"):
            tiny(wrong)


def test_a_compiled_model(tiny: VideoClassifier) -> None:
    """torch.compile wraps what a call computes."""
    classes = tiny.class_features(LABELS)
    with torch.no_grad():
        assert_close(torch.compile(tiny, backend="eager")(pixels_of(tiny), classes), tiny(pixels_of(tiny), classes))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_other_dtypes(name: Any) -> None:
    """Converted or loaded so, the model answers alike."""
    torch.manual_seed(0)
    full = create_model("ViT-test")
    converted = copy.deepcopy(full).half() if name == "float16" else copy.deepcopy(full).bfloat16()
    assert_close(converted.embed(VIDEO).float(), full.embed(VIDEO), name)
    assert_close(copy.deepcopy(full).to(dtype=getattr(torch, name)).embed(VIDEO).float(), full.embed(VIDEO), name)
    assert len(converted.classify(VIDEO, LABELS)) == 3
    assert_close(copy.deepcopy(full).double().embed(VIDEO), full.embed(VIDEO))


def test_copies(tiny: VideoClassifier) -> None:
    """Deep, pickled, and saved as a whole module."""
    expected = tiny.classify(VIDEO, LABELS)
    file = io.BytesIO()
    torch.save(tiny, file)
    file.seek(0)
    for other in (copy.deepcopy(tiny), pickle.loads(pickle.dumps(tiny)), torch.load(file, weights_only=False)):
        assert other.classify(VIDEO, LABELS) == expected
        assert other.to("cpu").classify([VIDEO, VIDEO], LABELS) == [expected] * 2


def test_an_int8_model_in_another_dtype(tiny: VideoClassifier) -> None:
    """It says what it computes in."""

    class Tower:
        def __call__(self, pixels: Tensor) -> Tensor:
            raise AssertionError

    tiny.int8 = Tower()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="float32 on the CPU, not in float16"):
        tiny.half().embed(VIDEO)


class Embedded(Dataset[Any]):
    """Embeds videos in the worker of a loader."""

    def __init__(self, model: VideoClassifier, video: str) -> None:
        self._model = model
        self._video = video

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        with pytest.raises(BackendError, match="one video at a time"):
            self._model.classify([self._video] * 2, LABELS)
        return self._model.embed(self._video)


@pytest.mark.heavy
def test_in_a_worker_of_a_loader(tiny: VideoClassifier, moving_video: str) -> None:
    """One video at a time works as elsewhere; several would need processes, which it may not have."""
    expected = tiny.embed(moving_video)
    for found in DataLoader(Embedded(tiny, moving_video), batch_size=None, num_workers=1):
        assert_close(found, expected, "equivalent")


@pytest.mark.parametrize("device", ["mps", "cuda:99", "abacus", 3.5])
def test_devices_that_are_not_there(device: Any) -> None:
    """One line, whatever PyTorch says."""
    with pytest.raises(ConfigError, match="device") as caught:
        load("tiny", device=device)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_the_device_is_found() -> None:
    """A GPU if there is one."""
    assert load("tiny", device="auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")
