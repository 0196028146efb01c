"""The laboratory's runs: reproducible, equal for every arm, and summarised correctly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from arms import ARMS, Arm, Data, judge, judge_mean, train_head
from torch.nn import functional as F
from tradeoff import chosen_rates
from tradeoff_report import markdown, rows_of, write_report
from world.splits import CLOSE_SET, ZERO_SHOT, splits
from write_demo import SHOWN, file_name

from mote_fast.cli.demo import CLIPS
from mote_fast.data.items import read_labels
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import VideoHead

WIDTH, FRAMES = 32, 4


def made_up(classes: int, seed: int) -> Data:
    """Videos whose frames point to their class."""
    random = torch.Generator().manual_seed(seed)
    texts = F.normalize(torch.randn(classes, WIDTH, generator=random), dim=-1)
    labels = torch.arange(classes).repeat(2)
    frames = texts[labels][:, None, None] + 0.05 * torch.randn(len(labels), 2, FRAMES, WIDTH, generator=random)
    return Data(frames, labels, texts)


def test_a_run_repeats_and_learns() -> None:
    """The same seed gives the same weights, another seed others; every kind of arm learns easy classes."""
    data = made_up(6, 0)
    for kind in ("plain", "experts", "wmr", "mote"):
        arm = Arm(kind, 1)
        first, again, other = (train_head(arm, data, 1e-3, 4, seed, 20.0) for seed in (0, 0, 1))
        states = [each.state_dict() for each in (first, again, other)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
        assert judge(first, {"close": data})["plain"]["close"] == 100.0


def test_clip_mean_has_nothing_to_train() -> None:
    """Mean pooling classifies by the frame features alone."""
    data = made_up(6, 0)
    head = VideoHead(HeadConfig(WIDTH, 1, 1, 0))
    assert judge_mean(head, {"close": data}) == {"close": 100.0}


def test_the_rate_is_chosen_by_close_set_accuracy() -> None:
    """Zero-shot accuracy has no influence, and ties take the lower rate."""
    pilots = [
        {"kind": "plain", "layers": 1, "lr": lr, "plain": {CLOSE_SET: close, **dict.fromkeys(ZERO_SHOT, zero)}}
        for lr, close, zero in ((3e-4, 50.0, 1.0), (1e-3, 60.0, 0.5), (3e-3, 60.0, 99.0))
    ]
    assert chosen_rates(pilots) == {("plain", 1): 1e-3}


@pytest.mark.heavy
def test_report(tmp_path: Path) -> None:
    """Means, deviations and harmonic means of the runs; every file is written."""
    lists = {name: made_up(len(split.classes), at) for at, (name, split) in enumerate(splits().items())}
    runs = []
    for arm in ARMS:
        for seed, value in enumerate((40.0, 60.0)):
            accuracy = dict.fromkeys(lists, value)
            runs.append(
                {"kind": arm.kind, "layers": arm.layers, "lr": 1e-3, "seed": seed}
                | {"plain": accuracy, "modulated": {"0.05": accuracy, "0.8": accuracy}}
            )
    rows = rows_of(runs, dict.fromkeys(lists, 25.0))
    assert rows[0]["model"] == "CLIP-Mean"
    assert all(row["trade-off"] == pytest.approx(50.0) for row in rows[1:])
    assert all(row[f"{CLOSE_SET} deviation"] == pytest.approx(200**0.5) for row in rows[1:])
    assert "| plain | 1 | 0.001 | 2 | 50.0 ± 14.1 |" in markdown(rows)
    head = train_head(Arm("mote", 1), lists[CLOSE_SET], 1e-3, 3, 0, 20.0)
    write_report(tmp_path, runs, dict.fromkeys(lists, 25.0), head, lists)
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".csv", ".json", ".png"}
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_the_demo_shows_the_worlds_classes() -> None:
    """The shipped videos and label lists carry the names that the world gives them."""
    found = splits()
    expected = {file_name(number, found[name].classes[index], name) for number, (name, index) in enumerate(SHOWN)}
    assert {path.relative_to(CLIPS).as_posix() for path in CLIPS.glob("*/*.mp4")} == expected
    for name in {name for name, _ in SHOWN}:
        assert read_labels(CLIPS / f"{name}.csv") == found[name].labels
