"""Attention maps against one cosine at a time."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from mote_fast.analysis.attention_maps import attention_csv, attention_maps
from mote_fast.analysis.patch_tokens import encode_patches
from mote_fast.analysis.variants import TOWER, expert_variants, tower_alone
from mote_fast.data.transforms import normalize
from tests.evaluation.made_up import small_model
from tests.tolerances import assert_close


def test_against_single_cosines() -> None:
    """Every frame's own output feature with its own patches; frames in several passes, attended to all together."""
    model = small_model(frames=6)
    size = model.clip.image_size
    frames = torch.randint(0, 256, (6, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    variants = [*expert_variants(model.head), tower_alone(model.head)]
    done: list[int] = []
    found = attention_maps(model.clip, variants, frames, progress=lambda count: done.append(count))
    assert torch.equal(found.frames, frames)
    assert (sum(done), len(done)) == (6, 2)
    with torch.no_grad():
        tokens = encode_patches(model.clip, normalize(frames))
        view = tokens.frames.clone()[None]
        outputs = {"merged": model.head.features(view), TOWER: view}
        outputs |= {f"expert {each}": model.head.features(view, expert=each) for each in range(model.head.experts)}
    assert outputs.keys() == found.maps.keys()
    rows, columns = tokens.patches.shape[1:3]
    for name, output in outputs.items():
        expected = torch.empty(6, rows, columns)
        for t in range(6):
            for row in range(rows):
                for column in range(columns):
                    expected[t, row, column] = F.cosine_similarity(output[0, t], tokens.patches[t, row, column], dim=0)
        assert_close(found.maps[name], expected)
    assert not torch.allclose(found.maps["merged"], found.maps["expert 0"], atol=1e-2)
    lines = attention_csv(found).splitlines()
    assert lines[0] == "variant,frame,row,column,cosine"
    assert len(lines) == 1 + len(variants) * 6 * rows * columns
    # The last patch of the second frame of the first variant.
    assert lines[2 * rows * columns] == f"merged,1,{rows - 1},{columns - 1},{found.maps['merged'][1, -1, -1]:.4f}"
