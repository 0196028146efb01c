"""One pass over a list: the official scores for any batch size, views and number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, multiprocessing
from torch import distributed as dist
from torch.nn import functional as F

import mote_fast
from mote_fast.data.items import UNLABELLED
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.order import Replica
from mote_fast.errors import ConfigError, NotFiniteError
from mote_fast.evaluation import predict as predict_module
from mote_fast.evaluation.accuracy import accuracies
from mote_fast.evaluation.predict import LabelSet, Predictions, embed_videos, predict, predict_label_sets
from mote_fast.head.scores import view_scores
from mote_fast.model.released import head_from_released
from tests.evaluation.made_up import MadeUpLoader, failure_of, made_up_pixels, random_classes, small_model
from tests.tolerances import assert_close

PROCESSES = 3


@pytest.fixture(scope="module")
def model() -> mote_fast.VideoClassifier:
    return small_model()


@torch.no_grad()
def by_hand(model: mote_fast.VideoClassifier, pixels: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Running scores [C] and pooled feature [d] of one video, pixels [V, T, 3, S, S], by eq. (18) and eq. (19)."""
    frames = model.clip.encode_frames(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
    scores = model.head(frames, classes).double().softmax(-1).mean(0).softmax(-1)
    views = F.normalize(model.head.features(frames, classes).mean(1), dim=-1)
    return scores, F.normalize(views.mean(0), dim=-1)


@pytest.mark.heavy
@settings(max_examples=15)
@given(videos=st.integers(1, 5), views=st.integers(1, 4), frames=st.integers(1, 6), batch=st.integers(1, 4))
def test_scores_of_any_shape(
    model: mote_fast.VideoClassifier, videos: int, views: int, frames: int, batch: int
) -> None:
    """A video's scores do not depend on the other videos of its batch, for any number of views and frames."""
    pixels, classes = made_up_pixels(videos, views, frames), random_classes(model)
    found = predict(model, MadeUpLoader(pixels, batch), classes)
    assert found.indices.tolist() == list(range(videos))
    expected = [by_hand(model, each, classes) for each in pixels]
    assert_close(found.running, torch.stack([scores for scores, _ in expected]))
    assert_close(found.features, torch.stack([feature for _, feature in expected]))
    cosines = found.features.double() @ F.normalize(classes, dim=-1).double().t()
    assert_close(found.full_class, (100 * cosines).softmax(-1))


def test_agrees_with_the_released_views(golden_clip: dict[str, Tensor], released_head: dict[str, Tensor]) -> None:
    """Golden frame features of two views give the official logits, and so the official score."""
    towers = small_model().clip
    model = mote_fast.VideoClassifier(towers, head_from_released(released_head, 2), 8)
    frames, classes = golden_clip["image.frame_features"], golden_clip["text.class_features"]
    towers.encode_frames = lambda pixels, **_: frames.flatten(0, 1)  # type: ignore[method-assign]
    found = predict(model, MadeUpLoader(made_up_pixels(1, views=2, frames=8)), classes)
    assert_close(found.running, view_scores(golden_clip["pipeline.logits"].double(), 2))


def test_failures_are_left_out_and_named(model: mote_fast.VideoClassifier) -> None:
    """An unreadable video is only among the failures, and no other video's label or score changes."""
    pixels, classes = made_up_pixels(5), random_classes(model)
    whole = predict(model, MadeUpLoader(pixels), classes)
    found = predict(model, MadeUpLoader(pixels, broken={0, 2, 3}), classes)
    assert found.indices.tolist() == [1, 4]
    assert found.labels.tolist() == [1, 4]
    assert found.failures == tuple(failure_of(index) for index in (0, 2, 3))
    assert_close(found.running, whole.running[[1, 4]], "equivalent")
    nothing = predict(model, MadeUpLoader(pixels, broken=range(5)), classes)
    assert nothing.running.shape == (0, len(classes))
    assert len(nothing.failures) == 5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_gpu_has_the_next_batch_before_its_results_are_read(
    model: mote_fast.VideoClassifier, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Its copy then runs beside the image tower; a CPU would only hold more memory. Failures keep their batch."""
    order: list[str] = []

    class Loader(MadeUpLoader):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            for number, batch in enumerate(super().epoch(epoch, start)):
                order.append(f"load {number}")
                yield batch

    monkeypatch.setattr(mote_fast.VideoClassifier, "device", property(lambda _: torch.device(device)))
    monkeypatch.setattr(predict_module, "_inferring", lambda _: nullcontext())
    monkeypatch.setattr(predict_module, "_encode", lambda *_: order.append("encode") or torch.zeros(1))
    monkeypatch.setattr(predict_module, "check_finite", lambda *_: order.append("read"))
    failures: list[Failure] = []
    loader = Loader(made_up_pixels(5), broken={2, 3, 4})
    done = [len(failures) for _ in predict_module.encode_videos(model, loader, failures)]  # type: ignore[arg-type]
    assert done == [0]
    assert [failure.index for failure in failures] == [2, 3, 4]
    alone = ["load 0", "encode", "read", "load 1", "load 2"]
    assert order == (alone if device == "cpu" else ["load 0", "encode", "load 1", "read", "load 2"])


def test_label_sets_share_the_pass(model: mote_fast.VideoClassifier) -> None:
    """Each label set scores its own videos, modulated for its own classes, while every video is encoded once."""
    pixels = made_up_pixels(6)
    first, second = random_classes(model, 7), random_classes(model, 4, seed=2)
    labels = torch.tensor([UNLABELLED, 3, 0, UNLABELLED, 1, UNLABELLED])
    loader = MadeUpLoader(pixels, broken={4, 5})
    everyone, some = predict_label_sets(model, loader, [LabelSet(first), LabelSet(second, labels)])
    assert loader.yielded == [0, 1, 2, 3]
    assert everyone.indices.tolist() == [0, 1, 2, 3]
    assert some.indices.tolist() == [1, 2]
    assert some.labels.tolist() == [3, 0]
    assert [failure.index for failure in some.failures] == [4]
    assert_close(some.running, torch.stack([by_hand(model, pixels[index], second)[0] for index in (1, 2)]))


@torch.no_grad()
def test_embeddings_are_the_classifiers_own(model: mote_fast.VideoClassifier) -> None:
    """Embeddings have no modulation and do not depend on the batch; unread videos are named."""
    pixels = made_up_pixels(5)
    found = embed_videos(model, MadeUpLoader(pixels, 3, broken={1}))
    assert found.indices.tolist() == [0, 2, 3, 4]
    assert found.failures == (failure_of(1),)
    for row, index in enumerate(found.indices.tolist()):
        frames = model.clip.encode_frames(pixels[index].flatten(0, 1)).unflatten(0, pixels.shape[1:3])
        views = F.normalize(model.head.features(frames).mean(1), dim=-1)
        assert_close(found.features[row], F.normalize(views.mean(0), dim=-1))
    nothing = embed_videos(model, MadeUpLoader(pixels, broken=range(5)))
    assert (nothing.features.shape, len(nothing.failures)) == ((0, model.clip.embed_dim), 5)


def test_random_routing_is_each_videos_own(model: mote_fast.VideoClassifier) -> None:
    """Random experts are drawn per video: the batch size changes nothing, another video does."""
    pixels, classes = made_up_pixels(1).expand(4, -1, -1, -1, -1, -1), random_classes(model)
    model.head.set_inference(aggregation="random")
    one, four = (predict(model, MadeUpLoader(pixels, batch), classes) for batch in (1, 4))
    model.head.set_inference(aggregation="merge")
    assert_close(one.running, four.running, "equivalent")
    assert len(one.running.unique(dim=0)) > 1


def test_ensemble_averages_logits(model: mote_fast.VideoClassifier) -> None:
    """The scores of an ensemble are those of its experts' mean cosines, as the head gives them."""
    pixels, classes = made_up_pixels(3), random_classes(model)
    model.head.set_inference(aggregation="ensemble")
    found = predict(model, MadeUpLoader(pixels), classes)
    expected = torch.stack([by_hand(model, each, classes)[0] for each in pixels])
    model.head.set_inference(aggregation="merge")
    assert_close(found.running, expected)


def test_frames_per_pass_are_bounded(model: mote_fast.VideoClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image tower never gets more frames at once than the bound, and the scores do not change."""
    pixels, classes = made_up_pixels(5, views=3), random_classes(model)
    expected = predict(model, MadeUpLoader(pixels, 5), classes)
    seen: list[int] = []
    encode = type(model.clip).encode_frames
    monkeypatch.setattr(type(model.clip), "encode_frames", lambda self, x, **_: seen.append(len(x)) or encode(self, x))
    monkeypatch.setattr(predict_module, "FRAMES_PER_PASS", 7)
    found = predict(model, MadeUpLoader(pixels, 5), classes)
    assert sum(seen) == 5 * 3 * 4
    assert max(seen) == 7
    assert_close(found.running, expected.running, "equivalent")


def test_training_goes_on_as_before(model: mote_fast.VideoClassifier) -> None:
    """Each module's mode is restored, there are no gradients, and the caller's autocast has no effect."""
    pixels, classes = made_up_pixels(3), random_classes(model)
    expected = predict(model, MadeUpLoader(pixels), classes)
    model.train()
    model.clip.eval()
    modes = [module.training for module in model.modules()]
    with torch.autocast("cpu", torch.bfloat16):
        found = predict(model, MadeUpLoader(pixels), classes)
    assert [module.training for module in model.modules()] == modes
    assert not found.features.requires_grad
    assert torch.equal(found.running, expected.running)
    model.eval()


def test_the_loader_works_outside_of_inference_mode(model: mote_fast.VideoClassifier) -> None:
    """A loader's buffers must stay writable after the pass: nothing of its own may be made in inference mode."""

    class Watched(MadeUpLoader):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            for batch in super().epoch(epoch, start):
                modes.append(torch.is_inference_mode_enabled())
                yield batch

    modes: list[bool] = []
    predict(model, Watched(made_up_pixels(3)), random_classes(model))
    assert modes == [False, False]


def test_progress_counts_every_video(model: mote_fast.VideoClassifier) -> None:
    """Readable or not, each video is reported done once."""
    done: list[int] = []
    predict(model, MadeUpLoader(made_up_pixels(5), broken={1}), random_classes(model), progress=done.append)
    assert done == [2, 2, 1]


def test_overlapping_shares_are_refused(model: mote_fast.VideoClassifier) -> None:
    """A video that comes twice would count twice: the error says how to make the loaders."""

    class Twice(MadeUpLoader):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            yield from super().epoch(epoch, start)
            yield from super().epoch(epoch, start)

    with pytest.raises(ConfigError, match=r"video 0 .*shard"):
        predict(model, Twice(made_up_pixels(2)), random_classes(model))


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    model = small_model()
    classes = random_classes(model)
    for size in range(1, PROCESSES + 1):
        if rank >= size:
            continue
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet{size}", rank=rank, world_size=size)
        # 7 and 5 are no multiples of 2 or 3; of 2 videos the third process has none.
        found = [
            predict(model, MadeUpLoader(made_up_pixels(videos), replica=Replica(rank, size), broken={1, 4}), classes)
            for videos in (7, 5, 2)
        ]
        dist.destroy_process_group()
        torch.save([(vars_of(each), each.failures, accuracies(each)) for each in found], f"{folder}/{size}_{rank}.pt")


def vars_of(found: Predictions) -> dict[str, Tensor]:
    return {name: value for name, value in vars(found).items() if isinstance(value, Tensor)}


@pytest.mark.heavy
def test_one_two_and_three_processes_agree(tmp_path: Path) -> None:
    """The same videos once each, the same failures and identical accuracies, on every process of any number."""
    multiprocessing.spawn(run_process, (str(tmp_path),), nprocs=PROCESSES)
    alone = torch.load(tmp_path / "1_0.pt", weights_only=False)
    assert [found[0]["indices"].tolist() for found in alone] == [[0, 2, 3, 5, 6], [0, 2, 3], [0]]
    for size in range(2, PROCESSES + 1):
        for rank in range(size):
            several = torch.load(tmp_path / f"{size}_{rank}.pt", weights_only=False)
            for one, found in zip(alone, several, strict=True):
                assert found[1:] == one[1:]
                for name, value in one[0].items():
                    assert_close(found[0][name], value, "equivalent" if value.is_floating_point() else "exact")


@pytest.mark.parametrize("part", ["clip.model.visual.proj", "head.blocks.0.ln_1.weight"])
def test_what_is_no_number_is_not_judged(part: str) -> None:
    """NaN in a tower or in the head would give the accuracy of always saying class 0."""
    lost = small_model()
    with torch.no_grad():
        lost.get_parameter(part).fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="are not finite"):
        predict(lost, MadeUpLoader(made_up_pixels(2)), random_classes(lost))
