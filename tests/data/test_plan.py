"""Plans of clips: functions of named integers, inside the frame, distributed as torchvision draws them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from mote_fast.data.plan import CROP_AREA, CROP_ASPECT, SSV2_SIZE, ClipPlan, ClipRecipe, plan_clip
from mote_fast.data.transforms import Box, CropsAlong, Geometry, Preprocessing, crop_offsets, short_side_size
from mote_fast.data.views import Views, plan_views
from mote_fast.errors import ConfigError

KINETICS = ClipRecipe(augmentation="kinetics")
SSV2 = ClipRecipe(augmentation="ssv2")

Videos = {"num_frames": st.integers(1, 400), "height": st.integers(1, 600), "width": st.integers(1, 600)}


def plan(
    recipe: ClipRecipe = KINETICS,
    *,
    num_frames: int = 100,
    height: int = 256,
    width: int = 340,
    label: int = 0,
    seed: int = 0,
    epoch: int = 0,
    index: int = 0,
) -> ClipPlan:
    return plan_clip(num_frames, height, width, label, recipe, seed=seed, epoch=epoch, index=index)


def drawn(plan: ClipPlan) -> tuple[object, ...]:
    return plan.views.frame_indices.tolist(), plan.views.positions.tolist(), plan.geometry, plan.label


@given(**Videos, recipe=st.sampled_from([KINETICS, SSV2]), index=st.integers(0, 10**6))
def test_random_boxes_lie_in_the_frame(
    num_frames: int, height: int, width: int, recipe: ClipRecipe, index: int
) -> None:
    """For any frame shape, also if no draw fits; frames lie in the video."""
    found = plan(recipe, num_frames=num_frames, height=height, width=width, index=index)
    scaled_height, scaled_width = found.geometry.scaled
    (box,) = found.geometry.boxes
    assert box.height >= 1
    assert box.width >= 1
    assert 0 <= box.top <= scaled_height - box.height
    assert 0 <= box.left <= scaled_width - box.width
    indices = found.views.frame_indices
    assert 0 <= indices.min() <= indices.max() < num_frames
    assert found.views.positions.shape == (1, recipe.frames)


@given(
    **Videos,
    views=st.sampled_from([Views(1, 1), Views(3, 1), Views(4, 3)]),
    size=st.integers(8, 64),
    along=st.sampled_from(get_args(CropsAlong)),
)
def test_evaluation_plans_are_the_released_views(
    num_frames: int, height: int, width: int, views: Views, size: int, along: CropsAlong
) -> None:
    """Nothing is random: frames are those of ``plan_views``, crops those of ``crop_offsets``."""
    recipe = ClipRecipe(frames=4, preprocessing=Preprocessing(size), views=views, crops_along=along)
    found = plan(recipe, num_frames=num_frames, height=height, width=width)
    wanted = plan_views(num_frames, 4, views)
    assert found.views.frame_indices.equal(wanted.frame_indices)
    assert found.views.positions.equal(wanted.positions)
    assert found.geometry.scaled == short_side_size(height, width, size)
    corners = crop_offsets(*found.geometry.scaled, size, views.crops, along)
    assert [(box.top, box.left) for box in found.geometry.boxes] == corners
    assert {(box.height, box.width) for box in found.geometry.boxes} == {(size, size)}
    assert not found.geometry.flip
    assert not found.geometry.grayscale
    assert drawn(plan(recipe, num_frames=num_frames, height=height, width=width, seed=9, epoch=9, index=9)) == drawn(
        found
    )


def test_plans_follow_seed_epoch_and_index() -> None:
    """Equal triples give equal plans, others differ: resuming and re-sharding change nothing."""
    keys = [(seed, epoch, index) for seed in range(4) for epoch in range(4) for index in range(4)]
    plans = {key: drawn(plan(seed=key[0], epoch=key[1], index=key[2])) for key in keys}
    assert len({repr(found) for found in plans.values()}) == len(keys)
    torch.rand(5)
    for key in reversed(keys):
        assert drawn(plan(seed=key[0], epoch=key[1], index=key[2])) == plans[key]


def test_crop_does_not_follow_the_length_of_the_video() -> None:
    """The number of frames changes only the draw of frames."""
    assert plan(num_frames=50).geometry == plan(num_frames=300).geometry


def test_boxes_are_distributed_as_torchvisions() -> None:
    """Area and aspect have the distributions of RandomResizedCrop, which the official recipe uses."""
    count = 2000
    ours = [plan(index=index).geometry.boxes[0] for index in range(count)]
    height, width = plan().geometry.scaled
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = [RandomResizedCrop.get_params(image, list(CROP_AREA), list(CROP_ASPECT)) for _ in range(count)]
    both = torch.tensor([[[*box] for box in boxes] for boxes in (ours, theirs)], dtype=torch.float64)
    tops, lefts, heights, widths = both.unbind(-1)
    figures = {
        "area": heights * widths,
        "aspect": widths / heights,
        "top": tops,
        "left": lefts,
    }
    # Kolmogorov and Smirnov's distance at a level of one in 10^4.
    limit = math.sqrt(-math.log(1e-4 / 2) / 2) * math.sqrt(2 / count)
    for name, (mine, reference) in figures.items():
        steps = torch.cat((mine, reference)).unique()
        distance = (
            torch.searchsorted(mine.sort().values, steps, right=True)
            - torch.searchsorted(reference.sort().values, steps, right=True)
        ).abs().max().item() / count
        assert distance < limit, name


def test_half_are_flipped_and_a_fifth_are_grey() -> None:
    """Flip and grey are independent; Something-Something's recipe has no grey (docs/method.md, Views)."""
    geometries = [plan(index=index).geometry for index in range(2000)]
    flips = torch.tensor([geometry.flip for geometry in geometries])
    grays = torch.tensor([geometry.grayscale for geometry in geometries])
    assert abs(flips.double().mean() - 0.5) < 0.05
    assert abs(grays.double().mean() - 0.2) < 0.04
    assert abs(grays[flips].double().mean() - 0.2) < 0.05
    ssv2 = [plan(SSV2, index=index).geometry for index in range(200)]
    assert not any(geometry.grayscale for geometry in ssv2)
    assert {geometry.scaled for geometry in ssv2} == {SSV2_SIZE}


def test_a_flip_swaps_the_label_that_has_a_mirror() -> None:
    """Pushing to the left, mirrored, is pushing to the right; labels not listed stay unchanged."""
    recipe = ClipRecipe(augmentation="ssv2", flip_labels={3: 4, 4: 3})
    for label, mirrored in ((3, 4), (4, 3), (5, 5)):
        plans = [plan(recipe, label=label, index=index) for index in range(50)]
        assert {(found.geometry.flip, found.label) for found in plans} == {(False, label), (True, mirrored)}


def test_a_class_that_must_not_be_mirrored_is_not() -> None:
    """The other draws of its clips are those of a class that is."""
    recipe = ClipRecipe(augmentation="kinetics", flip_labels={3: None})
    for index in range(50):
        kept, free = (plan(recipe, label=label, index=index) for label in (3, 4))
        assert not kept.geometry.flip
        assert kept.label == 3
        assert replace(free.geometry, flip=False) == kept.geometry


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"augmentation": "imagenet"}, "augmentation"),
        ({"augmentation": "kinetics", "views": Views(3, 1)}, "views 1x1"),
        ({"frames": 0}, "at least 1"),
        ({"crops_along": "height"}, "crops_along"),
        ({"preprocessing": Preprocessing(resize_mode="squash"), "views": Views(4, 3)}, "views x1"),
    ],
)
def test_impossible_recipes_are_refused(arguments: dict, message: str) -> None:
    """The recipe's constructor raises, not the first video."""
    with pytest.raises(ConfigError, match=message):
        ClipRecipe(**arguments)


@given(height=st.integers(8, 300), width=st.integers(8, 300))
def test_squashed_frames_have_one_view_of_the_whole(height: int, width: int) -> None:
    """The frame is scaled to the square, whatever its shape, and its only crop is all of it."""
    recipe = ClipRecipe(frames=2, preprocessing=Preprocessing(32, resize_mode="squash"), views=Views(4, 1))
    found = plan(recipe, num_frames=9, height=height, width=width).geometry
    assert found == Geometry((32, 32), (Box(0, 0, 32, 32),))


@pytest.mark.parametrize(
    ("size", "expected"), [(224, (256, 341)), (336, (336, 448)), (384, (384, 512)), (64, (64, 85)), (256, (256, 341))]
)
def test_training_scale_follows_the_size(size: int, expected: tuple[int, int]) -> None:
    """As released: 256 for crops of 224, the size itself for all others; Something-Something has one scale."""
    own = Preprocessing(size)
    shape = {"height": 480, "width": 640}
    found = plan(ClipRecipe(augmentation="kinetics", preprocessing=own), **shape).geometry
    assert found.scaled == expected
    assert plan(ClipRecipe(augmentation="ssv2", preprocessing=own), **shape).geometry.scaled == SSV2_SIZE
    portrait = plan(ClipRecipe(augmentation="kinetics", preprocessing=own), height=640, width=480).geometry
    assert portrait.scaled == expected[::-1]


def test_augmentation_does_not_squash() -> None:
    """Random crops have their own aspect: a model that squashes frames trains on the same boxes as CLIP."""
    plain, squash = (
        plan(ClipRecipe(augmentation="kinetics", preprocessing=Preprocessing(resize_mode=mode)), height=90, width=200)
        for mode in ("shortest", "squash")
    )
    assert plain.geometry == squash.geometry


def test_views_per_video() -> None:
    """Clips times crops."""
    assert ClipRecipe(views=Views(4, 3)).views_per_video == 12
